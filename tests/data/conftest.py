"""One tiny generated data set for all tests of a session; skipped where the machine cannot render."""

import pytest

from amt.data.synthetic.generator import GeneratorConfig, generate
from amt.robot import RenderUnavailable

TINY = GeneratorConfig(
    num_sequences=2,
    num_subjects=1,
    num_frames=4,
    num_cameras=2,
    width=160,
    height=120,
    seed=6,
    gesture_share=0.5,
    photographs="",
    grasps="kinematic",
)


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """The root of `TINY`, written in this process. Read it only."""
    root = tmp_path_factory.mktemp("generated")
    try:
        names = list(generate(TINY, root, num_workers=0))
    except RenderUnavailable as error:
        pytest.skip(str(error))
    assert len(names) == TINY.num_sequences
    return root
