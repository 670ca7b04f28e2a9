"""`--mode=demo`: `predict` on the embedded clip, whose camera is known, with the clip's object before the robot."""

import json
import sys
from importlib import resources
from pathlib import Path

from amt.errors import UserError
from amt.inference.intrinsics import make_camera
from amt.inference.video import open_clip
from amt.modes import predict, predict_settings
from amt.modes.common import check_workdir

ALONE = "the commands are retargeting alone, and there is no object before the robot"


def run(config, workdir: Path, input: str | None) -> dict:
    """Writes what `predict` writes, returns its figures. `UserError` for an input: the demo has its own."""
    if input:
        raise UserError(f"--input={input}: the demo has its own clip; add --mode=predict")
    workdir = check_workdir(workdir)
    predict_settings.check(config)
    with resources.as_file(resources.files("amt.inference").joinpath("assets")) as assets:
        source = open_clip(assets / "demo_clip.mp4", max_frames=config.predict.max_frames or None)
        camera = make_camera(*clip_camera(assets), source.width, source.height, config.camera.horizontal_fov)
        return predict.process(source, camera, config, workdir, _trial(config, assets / "demo_clip.json"))


def _trial(config, path: Path):
    """None, and a line that says why, where there is no policy for the weights or for the sides that are asked for."""
    from amt.models import weights
    from amt.modes.trial import Trial

    if config.retarget.side != "right" or config.predict.side == "left":
        print(f"the policy is of the right robot and the clip of a right hand: {ALONE}", file=sys.stderr)
        return None
    if "policy" not in weights.load(weights.resolve(config.predict.checkpoint))[1]:
        print(f"the weights have no policy: {ALONE}", file=sys.stderr)
        return None
    return Trial.read(path)


def clip_camera(assets: Path) -> tuple[list, list]:
    """K and T_world_camera of the embedded clip."""
    known = json.loads((assets / "demo_clip.json").read_text())
    return known["K"], known["T_world_camera"]
