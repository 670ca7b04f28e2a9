"""The command line of amt: `python launch.py --help`.

It reads the flags, sets up JAX and calls `run` of the mode's module in `amt/modes/`; the figures that come
back are printed and written to WORKDIR/MODE.json. Bad input and a full disk end in one line on stderr and exit
status 2, a run that was asked to stop and can go on (SIGTERM, Ctrl-C) in status 75, EX_TEMPFAIL. A prediction cannot go
on: SIGTERM ends it with status 143, Ctrl-C with 130, and nothing of it stays in the work directory.
"""

import contextlib
import errno
import importlib
import os
import sys
from pathlib import Path

from absl import flags, logging

from amt.errors import Stopped, UserError
from amt.modes.common import check_workdir, hold_workdir, package_version, print_table, write_json
from amt.modes.flags import Options, help_text, parse

ROOT = Path(__file__).resolve().parent
RESUMED = ("train", "generate", "convert")  # which go on from what they find in the work directory
PACKAGES = ("amt", "jax", "flax", "optax", "mujoco", "numpy")


def set_up_jax(cache_dir: str) -> None:
    """Has to run before jax is imported, which reads these; what the environment says already wins."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(cache_dir).expanduser()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's own log: errors only
    logging.set_verbosity(logging.WARNING)
    flags.FLAGS.mark_as_parsed()  # Grain asks absl's global flags, which `parse` leaves alone


def join_processes(distributed, mode: str) -> bool:
    """Makes this process one of `config.distributed`, if that is enabled; whether it is the one that reports."""
    if not distributed.enabled:
        return True
    if mode not in ("train", "evaluate"):
        raise UserError(f"config.distributed.enabled: --mode={mode} runs in one process; train and evaluate in several")
    import jax

    try:
        jax.distributed.initialize(
            distributed.coordinator or None,
            distributed.num_processes or None,
            distributed.process_id if distributed.process_id >= 0 else None,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"config.distributed: the processes did not find each other ({error}); outside of Slurm, GKE and TPU pods "
            "give coordinator=HOST:PORT, num_processes and process_id"
        ) from error
    return jax.process_index() == 0


def run(options: Options) -> None:
    workdir = check_workdir(options.workdir)
    set_up_jax(options.config.compilation_cache_dir)
    reports = join_processes(options.config.distributed, options.mode)
    mode = importlib.import_module(f"amt.modes.{options.mode}")
    several = options.config.distributed.enabled
    with hold_workdir(workdir, reports, several) if options.mode in RESUMED else contextlib.nullcontext():
        figures = mode.run(options.config, workdir, options.input)
    if not reports:
        return
    print_table(figures)
    versions = {name: package_version(name) for name in PACKAGES}
    result = write_json(
        workdir / f"{options.mode}.json",
        {**figures, "config": options.config.to_dict(), "versions": versions},
    )
    print(f"figures  {result}")


def main(argv: list[str]) -> int:
    if {"--help", "-help", "-h"} & set(argv):
        print(help_text())
        return 0
    try:
        run(parse(argv, ROOT))
    except UserError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return os.EX_TEMPFAIL
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error.filename or 'writing'}: {error.strerror}; make room and run it again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: nothing more is written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
