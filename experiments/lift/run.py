"""Does the robot lift what a simulated human hand lifts? From retargeted starts, by gradient descent, in MuJoCo C.

python experiments/lift/run.py --count=10 --films=FOLDER
"""

import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from scipy.spatial.transform import Rotation, Slerp

from amt import hand as hand_model
from amt import physics
from amt.data.scene_objects import scene_object
from amt.data.synthetic import physical, simulation
from amt.data.ycb import OBJECTS, USED_IDS
from amt.physics import objective, optimise
from amt.robot import SceneObject, build_scene, load_robot, replay, retarget
from amt.robot.model import NUM_ARM_JOINTS
from amt.structs import HandPose, Trajectory

FIRST = flags.DEFINE_integer("first", 0, "number of the first demonstration")
COUNT = flags.DEFINE_integer("count", 10, "demonstrations")
SEED = flags.DEFINE_integer("seed", 77, "of the demonstrations")
ITERATIONS = flags.DEFINE_integer("iterations", 60, "of gradient descent")
OUT = flags.DEFINE_string("out", "", "also write the rows to this JSON file")
FILMS = flags.DEFINE_string("films", "", "also draw a strip of every end result into this folder")

RATE = 50  # commands per second
NUM_FRAMES = 75
FPS = NUM_FRAMES / simulation.DURATION
HOLD = 0.5  # seconds
RAISED = 0.05  # metres
SOLIMP = (0.9, 0.95, 0.001, 0.5, 2.0)  # as hard as in the replay
NUM_SHAPES = 3  # of an object: one program for all
# Starts: scale of retargeting, and by how much every finger joint closes further from touch on, radians.
STARTS = (("fit", 0.2), ("fit", 0.35), ("fit", 0.5), (1.0, 0.0), (1.0, 0.1), (1.0, 0.2))
CLOSING = (0.75, 1.2)  # seconds between which they do
FLEXION = np.array([0, 1, 1, 1] * 3 + [0, 0.6, 1, 1])


def demonstration(index: int):
    """Joints [T,21,3], object rotation and position [T], in the world, of a right hand; its id, name, kind of grasp."""
    rng = np.random.default_rng([SEED.value, index])
    betas = np.clip(rng.normal(0, 1, 10), -2, 2)
    moved = physical.sample(rng, hand_model.load(), betas, NUM_FRAMES, 0.0, 2 * index + index % 2, USED_IDS)
    joints, R, t = moved.joints, moved.object_R[:, moved.grasped], moved.object_t[:, moved.grasped]
    if moved.side == "left":
        mirror = np.diag([-1.0, 1.0, 1.0])
        joints, R, t = joints @ mirror, mirror @ R @ mirror, t @ mirror
    item = OBJECTS[moved.ycb_ids[moved.grasped]]
    return joints, R, t, item.id, item.name, moved.grasp["kind"]


def start(joints, R, t, item, scale, closing):
    """Commands [T,22] at `RATE`, the object's path with them (position, rotation), and the scene."""
    ones = np.ones(len(joints), bool)
    fields = dict.fromkeys(HandPose.__dataclass_fields__) | {"joints": joints.astype(np.float32), "valid": ones}
    hand = HandPose(**fields | {"is_left": ~ones})
    made = retarget(hand, scale=scale, fps=FPS, T_world_camera=np.eye(4), base_height=0.0)
    T = np.asarray(made.T_base_world, np.float64)
    frames = np.arange(len(joints)) / FPS
    times = np.arange(0, frames[-1] + 1e-9, 1 / RATE)
    q = np.stack([np.interp(times, frames, column) for column in np.asarray(made.qpos, np.float64).T], 1)
    position = np.stack([np.interp(times, frames, column) for column in (t @ T[:3, :3].T + T[:3, 3]).T], 1)
    rotation = Slerp(frames, Rotation.from_matrix(T[:3, :3] @ R))(times).as_matrix()
    share = np.clip((times - CLOSING[0]) / (CLOSING[1] - CLOSING[0]), 0, 1)[:, None]
    q[:, NUM_ARM_JOINTS:] += closing * share * FLEXION
    limits = load_robot().limits
    q = np.clip(q, limits[:, 0] + optimise.LIMIT_MARGIN, limits[:, 1] - optimise.LIMIT_MARGIN)
    q, position, rotation = (
        np.concatenate([x, np.repeat(x[-1:], round(HOLD * RATE), 0)]) for x in (q, position, rotation)
    )
    placed = scene_object(item, position[0], rotation[0])
    return q, position, rotation, placed


def lifted(placed: SceneObject, commands: np.ndarray):
    """Whether MuJoCo C, with all contacts, holds it `RAISED` above its place for the last `HOLD`, and the replay."""
    played = replay(
        Trajectory(
            time=(np.arange(len(commands)) / RATE).astype(np.float32),
            qpos=np.asarray(commands, np.float32),
            valid=np.ones(len(commands), bool),
            T_base_world=np.eye(4, dtype=np.float32),
            names=load_robot().joint_names,
        ),
        build_scene([placed]),
    )
    height = played.state[:, 24] - placed.pos[2]
    return bool((height[-round(HOLD * RATE) :] > RAISED).all()), height[-1], played


def strip(path: Path, placed: SceneObject, played) -> None:
    import cv2
    import mujoco

    model = build_scene([placed]).compile()
    data, camera, pictures = mujoco.MjData(model), mujoco.MjvCamera(), []
    camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = placed.pos, 0.6, 120, -15
    with mujoco.Renderer(model, 300, 400) as renderer:
        for share in (0.2, 0.4, 0.5, 0.7, 0.999):
            data.qpos[:] = played.state[int(share * len(played.state))]
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera=camera)
            pictures.append(renderer.render())
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate(pictures, 1)[..., ::-1])


def main(_) -> None:
    rows = []
    for index in range(FIRST.value, FIRST.value + COUNT.value):
        joints, R, t, item, name, kind = demonstration(index)
        begin = time.perf_counter()
        starts = [start(joints, R, t, item, scale, closing) for scale, closing in STARTS]
        plain = start(joints, R, t, item, "fit", 0.0)
        models, states, goals = [], [], []
        for q, position, rotation, placed in starts:
            model, state = physics.put(build_scene([placed]), num_shapes=NUM_SHAPES, solimp=SOLIMP)
            models.append(model)
            states.append(physics.at_rest(model, jnp.concatenate([jnp.asarray(q[0], jnp.float32), state.qpos[22:]])))
            hand = jax.vmap(lambda x, m=model: objective.hand_frames(m, x))(jnp.asarray(q, jnp.float32))
            goals.append(
                objective.Goal(
                    jnp.asarray(position, jnp.float32),
                    jnp.asarray(rotation, jnp.float32),
                    hand.tips,
                    hand.wrist_pos,
                    hand.wrist_rot,
                    jnp.ones(len(q), bool),
                )
            )
        together = [jax.tree.map(lambda *x: jnp.stack(x), *parts) for parts in (states, goals)]
        commands = jnp.asarray(np.stack([s[0] for s in starts]), jnp.float32)
        first = None
        for progress in optimise.optimise(
            physics.stack(models), together[0], commands, together[1], iterations=ITERATIONS.value
        ):
            first = progress if first is None else first
        before, after = int(jnp.argmin(first.best)), int(jnp.argmin(progress.best))
        made = np.asarray(progress.controls)
        tried = [lifted(s[3], s[0]) for s in starts] + [lifted(s[3], u) for s, u in zip(starts, made, strict=True)]
        results = {
            "retargeted": lifted(plain[3], plain[0]),
            "best_start": tried[before],
            "optimised": tried[len(starts) + after],
            "verified": max(tried, key=lambda result: (result[0], result[1])),
        }
        row = {
            "object": name,
            "kind": kind,
            "seconds": time.perf_counter() - begin,
            "loss_before": float(first.best.min()),
        }
        row["loss_after"] = float(progress.best.min())
        for what, (held, height, _) in results.items():
            row[what], row[f"{what}_end_cm"] = held, 100 * float(height)
        row["starts_that_lift"] = sum(held for held, _, _ in tried[: len(starts)])
        row["optimised_that_lift"] = sum(held for held, _, _ in tried[len(starts) :])
        rows.append(row)
        print(index, {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        if FILMS.value:
            strip(Path(FILMS.value) / f"{index}_{name}.png", starts[after][3], results["verified"][2])
    print({what: sum(row[what] for row in rows) for what in results}, "of", len(rows))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
