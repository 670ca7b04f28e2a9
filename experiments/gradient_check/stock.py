"""Is `unrolled`, with which studies compare, what stock MJX does with `iterations=1`? One substep, float64.

pip install -e '.[mjx]'
JAX_ENABLE_X64=1 python experiments/gradient_check/stock.py
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx

from amt import physics
from amt.physics.solver import LINE_STEPS

sys.path.insert(0, str(Path(__file__).parent))
import run as check


def main() -> None:
    """The velocity after the step and the derivative of a random mixture of it with respect to the commands."""
    spec = check.scene("box")
    model = physics.chosen(spec)
    model.opt.iterations, model.opt.ls_iterations, model.opt.tolerance = 1, LINE_STEPS, 0.0
    put, (held, _) = mjx.put_model(model), physics.put(spec, dtype=jnp.float64)
    mixture = np.random.default_rng(0).normal(size=model.nv)

    def ours(u, start, unrolled):
        qvel = physics.step(held, start, u, unrolled=unrolled).qvel
        return (qvel * mixture).sum(), qvel

    def stock(u, data):
        qvel = mjx.step(put, data.replace(ctrl=u)).qvel
        return (qvel * mixture).sum(), qvel

    of_ours = jax.jit(jax.grad(ours, has_aux=True), static_argnums=2)
    of_stock = jax.jit(jax.grad(stock, has_aux=True))
    print("case, start; off in velocity: unrolled, solved; cosine of the derivatives: unrolled, solved; all from stock")
    for name, (state, controls, _) in check.cases(check.converged(spec)).items():
        for start, last in (("warm", state[2]), ("cold", np.zeros(model.nv))):
            u, (qpos, qvel) = jnp.asarray(controls[3]), map(jnp.asarray, state[:2])
            data = mujoco.MjData(model)
            data.qpos[:], data.qvel[:] = state[:2]
            mujoco.mj_forward(model, data)
            data = mjx.put_data(model, data).replace(qpos=qpos, qvel=qvel, qacc_warmstart=jnp.asarray(last))
            begin = physics.at_rest(held, qpos).replace(qvel=qvel, qacc=jnp.asarray(last))
            slope, velocity = of_stock(u, data)
            made = [of_ours(u, begin, unrolled) for unrolled in (True, False)]
            off = [float(jnp.abs(v - velocity).max()) for _, v in made]
            cosines = [float(g @ slope / jnp.linalg.norm(g) / jnp.linalg.norm(slope)) for g, _ in made]
            print(
                f"{name:8}{start:8}{off[0]:12.1e}{off[1]:12.1e}{'':24}{cosines[0]:10.6f}{cosines[1]:10.6f}", flush=True
            )


if __name__ == "__main__":
    main()
