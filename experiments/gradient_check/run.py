"""Gradients through contact against central differences of MuJoCo C, by case, shape and precision, and their time.

python experiments/gradient_check/run.py                 # figures; --time for the timings, --states=5000 for finiteness
JAX_ENABLE_X64=1 python experiments/gradient_check/run.py
"""

import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from absl import app, flags

from amt import physics
from amt.robot import SceneObject, build_scene

OUT = flags.DEFINE_string("out", "", "also write the rows to this JSON file")
TIME = flags.DEFINE_bool("time", False, "measure times instead")
STATES = flags.DEFINE_integer("states", 0, "instead, look for gradients that are not finite in so many random states")

ARM = [3.34997138, -0.46715272, 1.78368835, -4.45812829, 2.93321393, -3.14159265]
ARM_LIFTED = [3.34997138, -0.69799106, 1.86933167, -4.31293326, 2.93321393, -3.14159265]
OPEN = [0.0, 0.5, 0.5, 0.5] * 3 + [1.35, 0.2, 0.1, 0.3]
CLOSED = [0.0, 1.1, 0.9, 0.7] * 3 + [1.35, 0.4, 0.6, 0.9]
OPENED, SQUEEZED, LIFTED = (np.array([*a, *h]) for a, h in ((ARM, OPEN), (ARM, CLOSED), (ARM_LIFTED, CLOSED)))
SHAPES = {
    "box": ((0.03, 0.03, 0.05), 0.05),
    "cylinder": ((0.034, 0.05), 0.05),
    "capsule": ((0.034, 0.03), 0.064),
}  # half sizes and height of the middle
COMMANDS, SUBSTEPS, STEP = 10, 5, 1e-7
# Exactly upright the contact frames of cylinders and capsules are undefined, and single precision takes others.
TILT = np.array([0.01, -0.006])
OBJECT_GOAL = np.array([0.53, 0.12, 0.12])


def scene(shape: str) -> mujoco.MjSpec:
    size, height = SHAPES[shape]
    return build_scene([SceneObject("object", shape, size, pos=(0.5, 0.0, height))])


def converged(spec: mujoco.MjSpec) -> mujoco.MjModel:
    model = physics.chosen(spec)
    model.opt.tolerance, model.opt.ls_tolerance = 0.0, 1e-10
    model.opt.iterations = model.opt.ls_iterations = 100
    return model


def cases(model: mujoco.MjModel) -> dict[str, tuple[tuple, np.ndarray, bool]]:
    """By name: the state (qpos, qvel, last acceleration), commands [T, 22], and whether the loss is the object's."""
    rng = np.random.default_rng(0)
    data = mujoco.MjData(model)
    data.qpos[:22] = OPENED
    start = data.qpos.copy()
    data.qpos[26:28] = TILT
    data.ctrl[:] = SQUEEZED
    mujoco.mj_step(model, data, 60)
    rest = data.qpos.copy(), data.qvel.copy(), data.qacc_warmstart.copy()
    zero = np.zeros(model.nv)
    away, apart = start.copy(), start.copy()
    away[0] += 0.6
    apart[22] += 0.006
    apart[26:28] = TILT
    pushed, bent = SQUEEZED.copy(), SQUEEZED.copy()
    pushed[0] += 0.15
    bent[[7, 11, 15]] = 1.61  # the limit of the fingers' second joints

    def line(a, b):
        return np.linspace(0, 1, COMMANDS)[:, None] * (b - a) + a

    return {
        "free": ((away, zero, zero), line(away[:22], away[:22] + rng.normal(size=22) * 0.05), False),
        "rest": (rest, np.tile(SQUEEZED, (COMMANDS, 1)) + rng.normal(size=(COMMANDS, 22)) * 0.002, True),
        "lift": (rest, line(SQUEEZED, SQUEEZED + 0.4 * (LIFTED - SQUEEZED)), True),
        "push": (rest, line(SQUEEZED, pushed), True),
        "impact": ((apart, zero, zero), line(OPENED, OPENED + 1.6 * (SQUEEZED - OPENED)), True),
        "limits": ((away, zero, zero), line(away[:22], np.r_[away[:6], bent[6:]] + 0.05), False),
    }


def loss(qpos, of_object: bool, xp=np):
    """Of the object's pose, or of the robot's joints: smooth and of order 0.1."""
    if not of_object:
        return ((qpos[:22] - 0.3) ** 2).sum()
    w, x, y, z = qpos[25:29] / xp.sqrt((qpos[25:29] ** 2).sum())
    up = xp.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    return ((qpos[22:25] - xp.asarray(OBJECT_GOAL)) ** 2).sum() + 0.01 * ((up - xp.eye(3)[2]) ** 2).sum()


def play(model, state, controls) -> np.ndarray:
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.qacc_warmstart[:] = state
    for ctrl in controls:
        data.ctrl[:] = ctrl
        mujoco.mj_step(model, data, SUBSTEPS)
    return data.qpos.copy()


def differences(model, state, controls, of_object) -> np.ndarray:
    found = np.zeros_like(controls)
    for index in np.ndindex(controls.shape):
        sides = []
        for sign in (1, -1):
            moved = controls.copy()
            moved[index] += sign * STEP
            sides.append(float(loss(play(model, state, moved), of_object)))
        found[index] = (sides[0] - sides[1]) / (2 * STEP)
    return found


def start_of(held: physics.Model, state) -> physics.State:
    qpos, qvel, qacc = (jnp.asarray(x, held.mass.dtype) for x in state)
    return physics.at_rest(held, qpos).replace(qvel=qvel, qacc=qacc)


def value(controls, held, start, of_object):
    qpos = physics.rollout(held, start, controls).qpos[-1]
    return jnp.where(of_object, loss(qpos, True, jnp), loss(qpos, False, jnp)), qpos


def check() -> list[dict]:
    dtype = jnp.float64 if jax.config.jax_enable_x64 else jnp.float32
    gradient_of = jax.jit(jax.value_and_grad(value, has_aux=True))
    rows = []
    for shape in SHAPES:
        spec = scene(shape)
        model = converged(spec)
        held, _ = physics.put(spec, dtype=dtype)
        for name, (state, controls, of_object) in cases(model).items():
            truth = differences(model, state, controls, of_object)
            (_, qpos), found = gradient_of(jnp.asarray(controls, dtype), held, start_of(held, state), of_object)
            found = np.asarray(found, np.float64)
            size = np.linalg.norm(truth)
            rows.append(
                {
                    "shape": shape,
                    "case": name,
                    "precision": np.dtype(dtype).name,
                    "relative_error": float(np.linalg.norm(found - truth) / size),
                    "cosine": float((found * truth).sum() / np.linalg.norm(found) / size),
                    "norm": float(size),
                    "forward_error": float(np.abs(np.asarray(qpos) - play(model, state, controls)).max()),
                }
            )
            print("{shape:9s}{case:8s}{precision:9s}error {relative_error:.1e}  1-cosine {0:.1e}  |g| {norm:.1e}  "
                  "forward {forward_error:.1e}".format(1 - rows[-1]["cosine"], **rows[-1]), flush=True)  # fmt: skip
    return rows


def finite(count: int) -> list[dict]:
    """Gradients of one command with contact from a distance, batches of random states; degenerate ones among them."""
    rng = np.random.default_rng(1)
    rows = []
    gradient_of = jax.jit(
        jax.vmap(
            jax.grad(
                lambda u, m, s: (physics.rollout(m, s, u, reach=physics.Reach()).qpos[-1] ** 2).sum(), argnums=(0, 2),
                allow_int=True,
            ),
            in_axes=(0, None, 0),
        )
    )  # fmt: skip
    batch = 250
    for shape in SHAPES:
        held, start = physics.put(scene(shape))
        bad, touching = 0, 0
        for _ in range(-(-count // len(SHAPES) // batch)):
            share = rng.uniform(0, 1, (batch, 1))
            robot = OPENED + share * (SQUEEZED - OPENED) + rng.normal(size=(batch, 22)) * 0.1
            qpos = np.tile(np.asarray(start.qpos), (batch, 1))
            qpos[:, :22] = robot
            qpos[:, 22:25] += rng.normal(size=(batch, 3)) * 0.02
            turned = rng.random(batch) < 0.7  # the others stand exactly upright
            qpos[turned, 25:] += rng.normal(size=(turned.sum(), 4)) * 0.3
            qvel = rng.normal(size=(batch, 28)) * (rng.random((batch, 1)) < 0.7)
            states = jax.vmap(lambda q, v, held=held: physics.at_rest(held, q).replace(qvel=v))(
                jnp.asarray(qpos, jnp.float32), jnp.asarray(qvel, jnp.float32)
            )
            u = jnp.asarray(robot[:, None], jnp.float32)
            by_u, by_state = gradient_of(u, held, states)
            whole = jnp.concatenate([by_u.reshape(batch, -1), by_state.qpos, by_state.qvel], axis=-1)
            bad += int((~jnp.isfinite(whole).all(1)).sum())
            touching += int(
                (jax.vmap(lambda s, c, held=held: physics.step(held, s, c))(states, u[:, 0]).touch.dist < 0)
                .any(1)
                .sum()
            )
        rows.append(
            {
                "shape": shape,
                "states": batch * -(-count // len(SHAPES) // batch),
                "not_finite": bad,
                "touching": touching,
            }
        )
        print(rows[-1], flush=True)
    return rows


def seconds(f, repeats=5) -> float:
    f()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        f()
        times.append(time.perf_counter() - begin)
    return min(times)


def timings() -> list[dict]:
    """Of one gradient over 50 substeps with 22 controls each command, a held cylinder being lifted, one run."""
    spec = scene("cylinder")
    model = physics.chosen(spec)
    state, controls, _ = cases(model)["lift"]
    held, _ = physics.put(spec)
    rows = []
    for batch in (1, 16):
        args = (jnp.asarray(controls, jnp.float32), held, start_of(held, state))
        function = jax.grad(lambda u, m, s: value(u, m, s, True)[0])
        if batch > 1:
            args = jax.tree.map(lambda x, batch=batch: jnp.repeat(x[None], batch, 0), args)
            function = jax.vmap(function)
        begin = time.perf_counter()
        compiled = jax.jit(function).lower(*args).compile()
        compile_s = time.perf_counter() - begin
        spent = seconds(lambda c=compiled, a=args: jax.block_until_ready(c(*a))) / batch
        rows.append({"what": f"gradient, batch {batch}", "ms": 1e3 * spent, "compile_s": compile_s})
    A, B = np.zeros((2 * model.nv, 2 * model.nv)), np.zeros((2 * model.nv, model.nu))
    data = mujoco.MjData(model)

    def transition():
        data.qpos[:], data.qvel[:], data.qacc_warmstart[:] = state
        for ctrl in controls:
            data.ctrl[:] = ctrl
            for _ in range(SUBSTEPS):
                mujoco.mjd_transitionFD(model, data, STEP, False, A, B, None, None)
                mujoco.mj_step(model, data)

    def forward_differences():
        for _ in range(controls.size + 1):
            play(model, state, controls)

    rows += [{"what": "mjd_transitionFD", "ms": 1e3 * seconds(transition)}]
    rows += [{"what": "forward differences of rollouts", "ms": 1e3 * seconds(forward_differences, 2)}]
    for row in rows:
        row["times_batch_16"] = row["ms"] / rows[1]["ms"]
        print("{what:34s}{ms:8.1f} ms  {times_batch_16:5.1f} x".format(**row), row.get("compile_s", ""), flush=True)
    return rows


def main(_) -> None:
    rows = timings() if TIME.value else finite(STATES.value) if STATES.value else check()
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
