"""Two real processes over loopback: each sees its own shard, and together they cover the set once."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.layout import SUBJECTS, real_labels, write

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from amt.data.device_cache import cache_iterator, load_cache
from amt.data.dexycb import DexYCB
from amt.data.pipeline import to_mesh, train_iterator
from amt.data.quarantine import Quarantine
from pathlib import Path
from tests.samples import changed

config = changed(image_size=16, frame_size=16)
source = DexYCB(sys.argv[3], "s1", "train")
known = {source[i]["hand_pose"][3:48].tobytes(): i for i in range(len(source))}
split = NamedSharding(jax.make_mesh((2,), ("data",)), P("data"))

def samples(poses):
    return [known[np.asarray(pose)[3:].tobytes()] for pose in poses]  # mirroring a left hand leaves these

iterator = train_iterator(source, config, 4, 0, 0)  # 2 of the 4 in each process
batches = [next(iterator) for _ in range(len(source) // 4)]
streamed = [i for batch in batches for i in samples(batch.hand_pose)]
placed = to_mesh(batches[0], split)
mine = [i for shard in placed.hand_pose.addressable_shards for i in samples(shard.data)]
cache = load_cache(source, config, split, 0, 0.5, Quarantine(Path(sys.argv[4]), jax.process_index()))
held = samples(cache.hand_pose.addressable_shards[0].data)
rows = cache_iterator(source, 2, 4, 0)
cached = [held[k] for _ in range(len(source) // 4) for k in next(rows)]
print(json.dumps({"streamed": streamed, "placed": mine, "shape": placed.image.shape, "held": held, "cached": cached}))
"""


@pytest.mark.slow
def test_two_processes_cover_the_set_once(tmp_path):
    write(tmp_path / "data", SUBJECTS[:1], 2, 4, real_labels, (640, 480))  # 24 samples
    (tmp_path / "run").mkdir()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    arguments = (str(tmp_path / "data"), str(tmp_path / "run"))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(k), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for k in range(2)
    ]
    answers = []
    for process in processes:
        out, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-2000:]
        answers.append(json.loads(out.strip().splitlines()[-1]))
    for way in ("streamed", "cached", "held"):
        first, second = (answer[way] for answer in answers)
        assert not set(first) & set(second), way
        assert sorted(first + second) == list(range(24)), way
    for answer in answers:
        assert answer["shape"] == [4, 16, 16, 3]  # the global batch
        np.testing.assert_array_equal(answer["placed"], answer["streamed"][:2])  # of which a process holds its half
