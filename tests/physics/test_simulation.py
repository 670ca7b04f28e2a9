"""The differentiable simulation against MuJoCo C: motion in double precision, gradients by central differences."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from amt import physics
from amt.errors import UserError
from amt.robot import SceneObject, build_scene
from tests.physics.scenes import LIFTED, OPENED, SQUEEZED, converged, held, play, scene, still
from tests.precision import double_precision

SHAPES = ("box", "cylinder", "capsule")


@pytest.fixture(scope="module", autouse=True)
def in_double_precision():
    with double_precision():
        yield


@pytest.fixture(scope="module")
def rollout():
    return jax.jit(lambda model, state, controls: physics.rollout(model, state, controls))


def put(spec, start):
    model, _ = physics.put(spec, dtype=jnp.float64, max_contacts=24)
    qpos, qvel, qacc = map(jnp.asarray, start)
    return model, physics.at_rest(model, qpos).replace(qvel=qvel, qacc=qacc)


def line(a, b, n):
    return np.linspace(0, 1, n)[:, None] * (b - a) + a


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", ["free", "squeeze", "push", "limits"])
def test_it_moves_as_mujoco_c_does(shape, case, rollout):
    """Over 250 substeps; shapes of other kinds run through the same compiled program."""
    spec, rng = scene(shape), np.random.default_rng(0)
    model = converged(spec)
    start = still(model, OPENED)
    controls = {
        "free": line(OPENED, OPENED + rng.normal(size=22) * 0.2, 50),
        "squeeze": OPENED + np.minimum(np.linspace(0, 2, 50), 1)[:, None] * (SQUEEZED - OPENED),
        "push": line(OPENED, OPENED + np.eye(22)[0] * 0.3, 50),
        "limits": np.tile(np.r_[OPENED[:6], [2.0] * 16], (50, 1)),
    }[case]
    if case in ("free", "limits"):
        start[0][:1] += 0.6  # the hand far from the object
        controls = controls + np.eye(22)[0] * 0.6
    truth = play(model, start, controls)
    found = rollout(*put(spec, start), jnp.asarray(controls))
    np.testing.assert_allclose(found.qpos, truth, atol=1e-8)
    assert int(found.num_dropped[-1]) == 0
    if case == "push":
        assert np.abs(truth[-1] - truth[0])[22:24].max() > 0.02  # it did push


def test_objects_of_several_shapes_spin_and_fall_as_in_mujoco_c():
    """Two free objects, one of them of two shapes with its mass off its origin: 50 substeps, to double rounding."""
    spec = build_scene([SceneObject("a", "box", (0.03, 0.02, 0.05), pos=(0.9, 0.3, 0.2), quat=(0.6, 0.4, 0.5, 0.48)),
                        SceneObject("b", "capsule", (0.02, 0.05), pos=(0.9, -0.3, 0.15))])  # fmt: skip
    spec.body("a").add_geom(
        name="a2", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.02, 0.03, 0], pos=[0.02, 0.01, 0.06]
    )
    model = converged(spec)
    start = still(model, OPENED)
    start[1][22:] = [0.3, -0.2, 0.1, 3, -5, 2, 0, 0, 0.4, -4, 1, 6]
    truth = play(model, start, np.tile(OPENED, (10, 1)))
    found = physics.rollout(*put(spec, start), jnp.asarray(np.tile(OPENED, (10, 1))))
    np.testing.assert_allclose(found.qpos, truth, atol=1e-9)
    assert truth[-1, 24] < truth[0, 24] - 0.01


@pytest.fixture(scope="module")
def gradient():
    def loss(controls, model, state):
        qpos = physics.rollout(model, state, controls).qpos[-1]
        return jnp.sum((qpos[22:29] - jnp.arange(7.0) / 10) ** 2)

    return jax.jit(jax.grad(loss, argnums=(0, 2), allow_int=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", ["lift", "impact"])
def test_gradients_are_those_of_mujoco_c(shape, case, gradient):
    """Central differences in random directions; their error is some 1e-6 of the value."""
    spec, rng = scene(shape), np.random.default_rng(1)
    model = converged(spec)
    if case == "lift":
        start, controls = held(model, 60), line(SQUEEZED, SQUEEZED + 0.4 * (LIFTED - SQUEEZED), 6)
    else:
        start, controls = still(model, OPENED), line(OPENED, OPENED + 1.6 * (SQUEEZED - OPENED), 6)
        start[0][26:28] = 0.01, -0.006
    by_controls, by_state = gradient(jnp.asarray(controls), *put(spec, start))

    def loss(u, v):
        qpos = play(model, (start[0], start[1] + v, start[2]), controls + u)[-1]
        return np.sum((qpos[22:29] - np.arange(7) / 10) ** 2)

    for _ in range(3):
        du, dv = rng.normal(size=controls.shape), rng.normal(size=28)
        truth = (loss(1e-7 * du, 1e-7 * dv) - loss(-1e-7 * du, -1e-7 * dv)) / 2e-7
        ours = np.sum(by_controls * du) + np.sum(by_state.qvel * dv)
        assert ours == pytest.approx(truth, rel=1e-4, abs=1e-6)


def test_before_contact_only_reaching_has_a_gradient_and_it_changes_no_motion():
    spec = scene("box")
    model, state = put(spec, still(converged(spec), OPENED))
    state = state.replace(qpos=state.qpos.at[22].add(0.03))  # out of touch
    controls = jnp.tile(jnp.asarray(OPENED), (2, 1))

    def x(controls, stiffness):
        end = physics.rollout(model, state, controls, reach=physics.Reach(width=0.02, stiffness=stiffness))
        return end.qpos[-1, 22], end

    both = jax.jit(jax.value_and_grad(x, has_aux=True))
    ((_, plain), none), ((_, same), some) = both(controls, 0.0), both(controls, 100.0)
    np.testing.assert_array_equal(none, 0)
    np.testing.assert_array_equal(plain.qpos, same.qpos)
    assert np.abs(some[:, 6:]).max() > 1e-7 and np.isfinite(some).all()


def test_the_gradient_fades_with_what_it_remembers(gradient):
    spec = scene("cylinder")
    model, state = put(spec, held(converged(spec), 60))
    controls = jnp.tile(jnp.asarray(SQUEEZED), (3, 1))

    def z(controls, memory):
        return physics.rollout(model, state, controls, memory=memory).qpos[-1, 22:25].sum()

    slope = jax.jit(jax.grad(z))
    whole, half, none = (slope(controls, jnp.asarray(memory)) for memory in (1.0, 0.5, 0.0))
    np.testing.assert_allclose(half[2], whole[2], rtol=1e-9)
    np.testing.assert_allclose(half[1], whole[1] / 2, rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(none[:2], 0)


def test_a_guide_carries_the_object_along():
    spec = scene("box")
    model, state = put(spec, still(converged(spec), OPENED + np.eye(22)[0] * 0.6))
    goal = np.linspace([0.5, 0.0, 0.05], [0.5, 0.1, 0.2], 40)[:, None]
    turned = np.broadcast_to(np.eye(3), (40, 1, 3, 3))
    guide = physics.Guide(jnp.asarray(goal), jnp.asarray(turned), 1.0)
    end = physics.rollout(model, state, jnp.tile(state.qpos[:22], (40, 1)), guide=guide)
    lag = 2 / 20 * np.linalg.norm(goal[-1] - goal[-2]) / 0.02  # of a critically damped follower
    assert np.linalg.norm(end.qpos[-1, 22:25] - goal[-1, 0]) < 1.1 * lag


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda spec: setattr(spec.option, "cone", mujoco.mjtCone.mjCONE_ELLIPTIC), "elliptic friction cone"),
        (lambda spec: setattr(spec.joint("ffj1"), "frictionloss", 0.1), "friction loss"),
        (lambda spec: spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, name1="ffj1", name2="ffj2",
                                        objtype=mujoco.mjtObj.mjOBJ_JOINT), "equality constraints"),
        (lambda spec: setattr(spec.option, "integrator", mujoco.mjtIntegrator.mjINT_EULER), "implicitfast"),
        (lambda spec: setattr(spec.geom("object"), "type", mujoco.mjtGeom.mjGEOM_SPHERE), "made of a sphere"),
        (lambda spec: spec.delete(spec.body("object")), "no object that moves"),
    ],
)  # fmt: skip
def test_scenes_that_it_is_not_valid_for_are_refused(change, says):
    spec = scene("box")
    change(spec)
    with pytest.raises(UserError, match=says):
        physics.put(spec)
