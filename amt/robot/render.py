"""Pictures of a replay, where the machine can render without a screen."""

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator

import mujoco
import numpy as np
from jaxtyping import Bool, Float, UInt8

from amt.errors import UserError
from amt.robot.replay import Replay
from amt.robot.scene import CAMERA, GHOST_RGBA

BACKENDS = ("egl", "osmesa")
POINT_RADIUS = 0.009
INSTALL = "install one with `apt-get install libegl1` or `apt-get install libosmesa6`, or set MUJOCO_GL=egl|osmesa"


class RenderUnavailable(UserError):
    """This machine cannot render without a screen; the message says what to install."""


def render(
    replay: Replay,
    scene: mujoco.MjSpec,
    width: int = 640,
    height: int = 480,
    fps: float | None = None,
    *,
    camera: str = CAMERA,
    ghosts: dict[str, Float[np.ndarray, "T 4 4"]] | None = None,
    points: Float[np.ndarray, "T n 3"] | None = None,
    valid: Bool[np.ndarray, " T"] | None = None,
    shadows: bool = True,
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Frames of `replay` in the scene it was played in; `fps` None is the replay's own rate.

    ghosts: T_base_object per frame for ghost objects of the scene, by name.
    points: drawn as small translucent spheres, in the base frame: the human's fingertips.
    valid: where False, ghosts stay and points are not drawn.
    shadows: they double the time of a frame where there is no graphics card.

    Raises RenderUnavailable, with what to install, when the first frame is asked for.
    """
    model = scene.compile()
    data = mujoco.MjData(model)
    frames = _frame_indices(replay.time, fps)
    with _renderer(model, width, height) as renderer:
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        for t in frames:
            seen = valid is None or bool(valid[t])
            data.qpos[:] = replay.state[t]
            for name, poses in (ghosts or {}).items():
                if seen:
                    _place_ghost(model, data, name, np.asarray(poses[t], np.float64))
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            for point in points[t] if points is not None and seen else ():
                _draw_point(renderer.scene, np.asarray(point, np.float64))
            yield renderer.render().copy()


@functools.cache
def find_backend() -> str:
    """The rendering backend: $MUJOCO_GL if the user has set it, else the first of egl, osmesa that works.

    A backend is tried in a process of its own, because a failed attempt cannot be undone in this one.
    Raises RenderUnavailable.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    candidates = (chosen,) if chosen else BACKENDS
    code = "import mujoco; r = mujoco.Renderer(mujoco.MjSpec().compile(), 8, 8); r.render(); r.close()"
    for backend in candidates:
        environment = {**os.environ, "MUJOCO_GL": backend}
        if not chosen:
            environment.pop("PYOPENGL_PLATFORM", None)
        result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
        if result.returncode == 0:
            return backend
    tried = f"MUJOCO_GL={chosen}" if chosen else " and ".join(BACKENDS)
    raise RenderUnavailable(f"cannot render here ({tried} failed): {INSTALL}")


def _renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    backend = find_backend()
    if backend in BACKENDS:
        # MuJoCo reads MUJOCO_GL only when it is first imported; this assigns what it would have chosen.
        from mujoco.rendering.classic import gl_context

        gl_context.GLContext = importlib.import_module(f"mujoco.{backend}").GLContext
    return mujoco.Renderer(model, height, width)


def _frame_indices(time: np.ndarray, fps: float | None) -> np.ndarray:
    if fps is None or len(time) == 1:
        return np.arange(len(time))
    interval = np.median(np.diff(time))
    wanted = np.arange(max(1, round(len(time) * interval * fps))) / fps
    return np.minimum((wanted / interval + 1e-3).astype(int), len(time) - 1)


def _place_ghost(model: mujoco.MjModel, data: mujoco.MjData, name: str, T: np.ndarray) -> None:
    slot = model.body(name).mocapid[0]
    if slot < 0:
        raise UserError(f"render: {name!r} is not a ghost of the scene; build it with ghost=True")
    data.mocap_pos[slot] = T[:3, 3]
    mujoco.mju_mat2Quat(data.mocap_quat[slot], T[:3, :3].ravel())


def _draw_point(scene: mujoco.MjvScene, point: np.ndarray) -> None:
    if scene.ngeom < scene.maxgeom:
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            mujoco.mjtGeom.mjGEOM_SPHERE,
            np.full(3, POINT_RADIUS),
            point,
            np.eye(3).ravel(),
            np.array([*GHOST_RGBA[:3], 0.7], np.float32),
        )
        scene.ngeom += 1
