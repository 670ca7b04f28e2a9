"""Settings of `predict` and `demo`: all that can be wrong with them is found before a frame is seen."""

import numpy as np

from amt.errors import UserError
from amt.inference.smoothing import OneEuro, SavitzkyGolay

SIDES = ("right", "left")


def check(config) -> None:
    """Raises `UserError` for any setting that a later step would refuse."""
    from amt.models import weights
    from amt.modes.hands import load_hand
    from amt.robot.scene import MAX_RENDER_SIZE

    smoother(config.predict)
    is_left(config.predict)
    scale(config.retarget)
    if config.retarget.side not in SIDES:
        raise UserError(f"retarget.side={config.retarget.side!r}: expected right or left")
    _expect_positive("predict", config.predict, "savgol_window", "one_euro_min_cutoff")
    _expect_positive("retarget", config.retarget, "smoothness", "iterations")
    _expect_positive("replay", config.replay, "width", "height", "substep")
    for name in ("savgol_order", "one_euro_beta", "max_frames"):
        if not 0 <= config.predict[name] < np.inf:
            raise UserError(f"predict.{name}={config.predict[name]}: expected 0 or more")
    for name, most in zip(("width", "height"), MAX_RENDER_SIZE, strict=True):
        if config.replay[name] > most:
            raise UserError(f"replay.{name}={config.replay[name]}: expected at most {most} pixels")
    if not (path := weights.resolve(config.predict.checkpoint)).is_file():
        raise UserError(f"predict.checkpoint: {path}: no such file; give a --mode=train folder or a .safetensors file")
    weights.check_hand(path, load_hand(config.hand))
    if config.replay.meshes:
        from amt.robot import build_scene, load_robot

        build_scene((), load_robot(config.retarget.side), meshes=config.replay.meshes)  # reads every mesh


def smoother(predict) -> SavitzkyGolay | OneEuro | None:
    """The filter of `config.predict`; `UserError` for a name that is none."""
    if predict.smoothing == "savgol":
        return SavitzkyGolay(predict.savgol_window, predict.savgol_order)
    if predict.smoothing == "one_euro":
        return OneEuro(predict.one_euro_min_cutoff, predict.one_euro_beta)
    if predict.smoothing == "none":
        return None
    raise UserError(f"predict.smoothing={predict.smoothing!r}: expected savgol, one_euro or none")


def is_left(predict) -> bool | None:
    """Whether `config.predict.side` says that it is a left hand; None where the predictor decides."""
    sides = {"auto": None, "left": True, "right": False}
    if predict.side not in sides:
        raise UserError(f"predict.side={predict.side!r}: expected auto, left or right")
    return sides[predict.side]


def scale(retarget) -> float | str:
    """`config.retarget.scale`: `fit`, or a number, which the command line gives as text."""
    if retarget.scale == "fit":
        return "fit"
    try:
        value = float(retarget.scale)
    except (TypeError, ValueError):
        value = np.nan
    if not 0 < value < np.inf:
        raise UserError(f"retarget.scale={retarget.scale!r}: expected fit, or a positive number")
    return value


def _expect_positive(section: str, values, *names: str) -> None:
    for name in names:
        if not 0 < values[name] < np.inf:
            raise UserError(f"{section}.{name}={values[name]}: expected a positive number")
