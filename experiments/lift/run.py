"""Does the robot lift what a simulated human hand lifts? From retargeted starts, by gradient descent, in MuJoCo C.

python experiments/lift/run.py --count=10 --films=FOLDER
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from amt import hand as hand_model
from amt import physics
from amt.data.demonstrations import Demonstration
from amt.data.synthetic import physical, simulation
from amt.data.ycb import OBJECTS, USED_IDS
from amt.physics import objective, optimise
from amt.robot import SceneObject, build_scene
from amt.training import teacher
from amt.training.teacher import Proposal, Start

FIRST = flags.DEFINE_integer("first", 0, "number of the first demonstration")
COUNT = flags.DEFINE_integer("count", 10, "demonstrations")
SEED = flags.DEFINE_integer("seed", 77, "of the demonstrations")
ITERATIONS = flags.DEFINE_integer("iterations", 60, "of gradient descent")
OUT = flags.DEFINE_string("out", "", "also write the rows to this JSON file")
FILMS = flags.DEFINE_string("films", "", "also draw a strip of every end result into this folder")

NUM_FRAMES = 75
SOLIMP = (0.9, 0.95, 0.001, 0.5, 2.0)  # as hard as in the replay
NUM_SHAPES = 3  # of an object: one program for all
DESCENTS = 3  # of the starts that the model likes best
SHIFTS = np.array([[0.0, 0.0], [0.008, 0.008], [-0.008, -0.008]])  # metres, where the object may lie instead


def demonstrated(index: int) -> tuple[Demonstration, str]:
    """A right hand's grasp (left ones are mirrored), and what kind it is."""
    rng = np.random.default_rng([SEED.value, index])
    betas = np.clip(rng.normal(0, 1, 10), -2, 2)
    moved = physical.sample(rng, hand_model.load(), betas, NUM_FRAMES, 0.0, 2 * index + index % 2, USED_IDS)
    if left := moved.side == "left":
        moved = physical.mirrored(moved)
    frames = np.arange(NUM_FRAMES) * simulation.DURATION / NUM_FRAMES
    item, seen = moved.grasped, np.ones(NUM_FRAMES, bool)
    shown = Demonstration(
        frames, moved.joints, seen, moved.object_t[:, item], moved.object_R[:, item], moved.ycb_ids[item], left
    )
    return shown, moved.grasp["kind"]


def scenes(proposals: list[Proposal]):
    """Models, states and goals of every proposal with the object at each of `SHIFTS`, proposal after proposal."""
    models, states, goals = [], [], []
    for proposal in proposals:
        commands = jnp.asarray(proposal.commands, jnp.float32)
        for shift in SHIFTS:
            placed = moved(proposal.placed, shift)
            model, state = physics.put(build_scene([placed]), num_shapes=NUM_SHAPES, solimp=SOLIMP)
            hand = jax.vmap(lambda q, m=model: objective.hand_frames(m, q))(commands)
            path = proposal.object_pos + np.append(shift, 0.0)
            path, turn = jnp.asarray(path, jnp.float32), jnp.asarray(proposal.object_rot, jnp.float32)
            every = jnp.ones(len(commands), bool)
            models.append(model)
            states.append(physics.at_rest(model, jnp.concatenate([commands[0], state.qpos[22:]])))
            goals.append(objective.Goal(path, turn, hand.tips, hand.wrist_pos, hand.wrist_rot, every))
    return physics.stack(models), *(jax.tree.map(lambda *x: jnp.stack(x), *parts) for parts in (states, goals))


def moved(placed: SceneObject, shift: np.ndarray) -> SceneObject:
    x, y, z = placed.pos
    return dataclasses.replace(placed, pos=(x + shift[0], y + shift[1], z))


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
        shown, kind = demonstrated(index)
        begin = time.perf_counter()
        plain = teacher.propose(shown, Start("fit"))
        starts = [teacher.propose(shown, start, plain.T_base_world) for start in teacher.STARTS]
        models, states, goals = scenes(starts)
        commands = jnp.asarray(np.stack([s.commands for s in starts]), jnp.float32)
        losses = np.asarray(optimise.judge(models, states, commands, goals))
        best = np.argsort(losses)[:DESCENTS]
        rows_of = (best[:, None] * len(SHIFTS) + np.arange(len(SHIFTS))).ravel()
        chosen = [jax.tree.map(lambda x, rows=rows_of: x[rows], tree) for tree in (models, states, goals)]
        *_, progress = optimise.optimise(chosen[0], chosen[1], commands[best], chosen[2], iterations=ITERATIONS.value)
        made = np.asarray(progress.controls)
        after = int(np.argmin(progress.best))
        played = [(s.placed, teacher.play(s.commands, s.placed)) for s in (plain, *starts)]
        played += [(starts[i].placed, teacher.play(u, starts[i].placed)) for i, u in zip(best, made, strict=True)]
        results = [(teacher.lifted(p, placed), float(teacher.height(p, placed)[-1])) for placed, p in played]
        of_starts, of_descent = results[1 : 1 + len(starts)], results[1 + len(starts) :]
        outcome = {
            "retargeted": results[0],
            "best_start": of_starts[best[0]],
            "optimised": of_descent[after],
            "verified": max(results),
        }
        row = {"object": OBJECTS[shown.ycb_id].name, "kind": kind, "seconds": time.perf_counter() - begin}
        row |= {"loss_before": float(losses[best[0]]), "loss_after": float(progress.best[after])}
        for what, (held, end) in outcome.items():
            row[what], row[f"{what}_end_cm"] = held, 100 * end
        row["starts_that_lift"] = sum(held for held, _ in of_starts)
        row["descended_from_that_lift"] = sum(of_starts[i][0] for i in best)
        row["optimised_that_lift"] = sum(held for held, _ in of_descent)
        rows.append(row)
        print(index, {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        if FILMS.value:
            strip(Path(FILMS.value) / f"{index}_{row['object']}.png", *played[results.index(outcome["verified"])])
    print({what: sum(row[what] for row in rows) for what in outcome}, "of", len(rows))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
