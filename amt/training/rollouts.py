"""Stage 3: commands are played in the differentiable simulation, and what comes of them teaches the whole network."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial.transform import Rotation

from amt import losses, physics
from amt.data.scene_objects import scene_object
from amt.data.ycb import primitive_table
from amt.geometry.rotations import to_quaternion
from amt.hand import HandModel
from amt.losses.actions import TIPS, ActionLabels, action_losses
from amt.models import sigma_reparam
from amt.models.perception import Amt
from amt.models.policy import Policy, observe
from amt.models.temporal import Observation
from amt.physics import Guide, Reach, objective
from amt.physics.objective import Goal
from amt.robot import build_scene, forward, load_robot
from amt.structs import Actions, Batch, HandClip
from amt.training.lessons import Lesson
from amt.training.step import Loss, Objective, perception_terms
from amt.training.teacher import RATE

ROLLOUT = "rollout"  # the term of the loss


@flax.struct.dataclass
class Task:
    """What the commands of b windows should bring about: an object lies there, and should go with the human's.

    `shares` make commands out of chunks (`amt.inference.acting.shares`). `object_pose` is where the object is at first,
    position (metres, base frame) and quaternion wxyz. `goal` is what it and the hand should do after each command.
    """

    shares: Float[Array, "b T t n"]
    ycb_id: Int[Array, " b"]
    object_pose: Float[Array, "b 7"]
    goal: Goal


@flax.struct.dataclass
class PhysicsBatch:
    """Windows of b videos as their pixels show them, what should be done there; and samples for perception's terms."""

    clip: HandClip
    labels: ActionLabels
    task: Task
    perception: Batch


@flax.struct.dataclass
class PracticeBatch:
    """Windows of b videos as perception, which does not learn, has seen them, and what should be done there."""

    seen: Observation
    labels: ActionLabels
    task: Task


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How rollouts teach. `weights` are those of `amt.physics.objective`.

    From the first update to `curriculum_steps` the share of a window that counts grows from `first_horizon` to 1, the
    width of contact from a distance goes geometrically from `reach_width` to `last_reach_width` (metres; 0: none), and
    the help of a guide that leads the object from `guide` to none. `memory` is that of `amt.physics.rollout`.
    The derivative of each rollout with respect to its commands is clipped to the norm `clip_norm`, 1/radian; with
    `unrolled` it is that of stock MJX (`amt.physics.rollout`), a comparison.
    """

    weights: Mapping[str, float]
    first_horizon: float
    reach_width: float
    last_reach_width: float
    reach_stiffness: float
    guide: float
    memory: float
    clip_norm: float
    curriculum_steps: int
    unrolled: bool = False


def task(
    lesson: Lesson,
    first: float,
    shares: Float[np.ndarray, "T t n"],
    aside: Float[np.ndarray, " 2"] | tuple[float, float] = (0.0, 0.0),
) -> Task:
    """Of a window of a lesson that begins at `first` seconds; the object stands where it was put at first.

    Commands that come after the lesson's last are not judged. With `aside` (metres, along x and y of the base frame)
    the object stands elsewhere by as much, and should go as far from there, with the same hand.
    """
    there = np.array([*aside, 0.0])
    n, count = len(lesson.commands), len(shares)
    ticks = first * RATE + np.arange(count)
    whole = np.minimum(ticks.round().astype(int), n - 1)

    def at(values: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "T c"]:
        return np.stack([np.interp(ticks, np.arange(n), column) for column in values.T], axis=-1).astype(np.float32)

    frames = forward(load_robot(), at(lesson.commands), ("wrist", *TIPS))
    frames = {name: np.asarray(T) for name, T in frames.items()}
    pose = np.concatenate([lesson.object_pos[0] + there, np.asarray(to_quaternion(lesson.object_rot[0]))])
    goal = Goal(
        object_pos=at(lesson.object_pos + there),
        object_rot=lesson.object_rot[whole].astype(np.float32),
        tips=np.stack([frames[name][:, :3, 3] for name in TIPS], axis=1),
        wrist_pos=frames["wrist"][:, :3, 3],
        wrist_rot=frames["wrist"][:, :3, :3],
        valid=ticks <= n - 1,
    )
    return Task(shares.astype(np.float32), np.int32(lesson.ycb_id), pose.astype(np.float32), goal)


def turned_task(task: Task, angle: float) -> Task:
    """One window's on another side of the robot, as `amt.training.policy.turned`: all about the base's z, radians."""
    turn = Rotation.from_rotvec([0.0, 0.0, angle])
    R, goal, pose = turn.as_matrix().astype(np.float32), task.goal, task.object_pose
    quat = (turn * Rotation.from_quat(pose[3:], scalar_first=True)).as_quat(scalar_first=True)
    goal = goal.replace(
        object_pos=goal.object_pos @ R.T,
        object_rot=R @ goal.object_rot,
        tips=goal.tips @ R.T,
        wrist_pos=goal.wrist_pos @ R.T,
        wrist_rot=R @ goal.wrist_rot,
    )
    return task.replace(object_pose=np.concatenate([R @ pose[:3], quat]).astype(np.float32), goal=goal)


def num_commands(seconds: float) -> int:
    """Of a window whose last frame is so long after its first."""
    return int(seconds * RATE) + 1


def object_models(ycb_ids: Iterable[int]) -> physics.Model:
    """Scenes of the robot with one object each, by YCB id; rows of ids that are not named are of no use."""
    known = sorted(set(ycb_ids))
    scenes = {i: build_scene([scene_object(i, np.zeros(3), np.eye(3))]) for i in known}
    room = max(physics.put(scene)[0].shape_kind.shape[-1] for scene in scenes.values())
    made = {i: physics.put(scene, num_shapes=room)[0] for i, scene in scenes.items()}
    return physics.stack([made.get(i, made[known[0]]) for i in range(max(known) + 1)])


def played(
    shares: Float[Array, "b T t n"], chunks: Float[Array, "b t n 22"], q: Float[Array, "b 22"]
) -> Float[Array, "b T 22"]:
    """The commands of chunks, as `amt.inference.acting.play_chunks` has them; `q` before there is a chunk."""
    made = jnp.einsum("bkts,btsj->bkj", shares, chunks, precision="highest")
    return made + (1 - shares.sum((2, 3)))[..., None] * q[:, None]


def rollout_loss(
    config: RolloutConfig,
    models: physics.Model,
    commands: Float[Array, "b T 22"],
    task: Task,
    share: Float[Array, ""],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The mean objective of the windows' rollouts, and its terms as `rollout_NAME`; `share` of the curriculum is over.

    The robot starts at rest at the first command. The derivative is taken rollout by rollout, clipped, and handed to
    the commands: one stiff contact does not drown the others. A rollout of which a number is not finite teaches
    nothing; `rollout_not_finite_share` counts those, `rollout_clipped_share` the clipped ones.
    """
    length = commands.shape[1]
    horizon = jnp.ceil(length * (config.first_horizon + (1 - config.first_horizon) * share))
    counted = task.goal.valid & (jnp.arange(length, dtype=jnp.float32) < horizon)[None]
    goals = task.goal.replace(valid=counted)
    reach = None
    if config.reach_width:
        width = config.reach_width ** (1 - share) * config.last_reach_width**share
        reach = Reach(width, config.reach_stiffness)
    gain = config.guide * (1 - share) ** 2

    def judged(u, model, pose, goal):
        state = physics.at_rest(model, jnp.concatenate([u[0], pose]))
        guide = Guide(goal.object_pos[:, None], goal.object_rot[:, None], gain) if config.guide else None
        options = {"reach": reach, "memory": config.memory, "guide": guide, "unrolled": config.unrolled}
        states = physics.rollout(model, state, u, follow=True, **options)
        terms = objective.terms(model, states, u, goal)
        return objective.total(terms, config.weights), terms

    chosen = jax.tree.map(lambda x: x[task.ycb_id], models)
    graded = jax.vmap(jax.value_and_grad(judged, has_aux=True))
    (value, terms), slope = graded(jax.lax.stop_gradient(commands), chosen, task.object_pose, goals)
    finite = jnp.isfinite(value) & jnp.isfinite(slope).all((1, 2))
    slope = jnp.where(finite[:, None, None], slope, 0.0)
    norm = jnp.sqrt(jnp.sum(slope**2, axis=(1, 2)))
    slope = slope * (config.clip_norm / jnp.maximum(norm, config.clip_norm))[:, None, None]
    count = jnp.maximum(finite.astype(value.dtype).sum(), 1.0)

    def mean(x):
        return jnp.sum(jnp.where(finite, x, 0.0)) / count

    value = mean(value) + jnp.sum(slope * (commands - jax.lax.stop_gradient(commands))) / count
    scalars = {f"rollout_{name}": mean(x) for name, x in terms.items()}
    scalars |= {
        "rollout_not_finite_share": 1 - finite.mean(),
        "rollout_clipped_share": mean((norm > config.clip_norm).astype(value.dtype)),
        "rollout_slope": mean(norm),
    }
    return value, scalars


def looker(model: Amt, hand: HandModel) -> Callable[[dict, HandClip, dict], Observation]:
    """(plain parameters, clip [b,t,...], keys of dropout) -> what a policy is given of it."""
    half = jnp.asarray(primitive_table()[0], jnp.float32)

    def look(plain: dict, clip: HandClip, rngs: dict) -> Observation:
        image, K = (x.reshape(-1, *x.shape[2:]) for x in (clip.image, clip.K))
        out = model.apply({"params": plain}, image, K, hand, rngs=rngs, method="perceive")
        return observe(out, clip.T_base_crop, half, clip.qpos, clip.valid, clip.scale)

    return look


def actor(model: Amt, policy: Policy, hand: HandModel) -> Callable[[dict, HandClip, dict], Actions]:
    """(plain parameters, clip [b,t,...], keys of dropout) -> actions, from the pixels on."""
    look = looker(model, hand)

    def act(plain: dict, clip: HandClip, rngs: dict) -> Actions:
        return policy.apply({"params": plain["policy"]}, look(plain, clip, rngs), rngs=rngs)[0]

    return act


def physics_loss(
    model: nn.Module,
    policy: Policy,
    weights: Objective,
    rollouts: RolloutConfig,
    models: physics.Model,
    hand: HandModel,
    seed: int = 0,
    accumulation: int = 1,
) -> Loss:
    """On a `PhysicsBatch`: the terms of perception and of cloning, and that of the rollouts.

    `weights` are of all of these, `models` those of `object_models`. Dropout is a function of `seed` and the step.
    """
    perceived, act = perception_terms(model, weights, hand), actor(model, policy, hand)
    judge = _judge(weights, rollouts, models, accumulation)

    def loss(params, spectral, batch: PhysicsBatch, step):
        plain, after = sigma_reparam.fold(params, spectral)
        rng, of_policy = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
        terms, watched = perceived(plain, batch.perception, rng)
        actions = act(plain, batch.clip, {"dropout": of_policy})
        more, scalars = judge(actions, batch.labels, batch.task, batch.clip.qpos[:, 0], step)
        terms, watched = terms | more, watched | scalars
        if weights.has("kl"):
            terms["kl"] = losses.kl_gains(sigma_reparam.gains(params, spectral))
        value, terms = weights.total(terms, step)
        return value, (terms | watched, after)

    return loss


def practice_loss(
    policy: Policy,
    weights: Objective,
    rollouts: RolloutConfig,
    models: physics.Model,
    seed: int = 0,
    accumulation: int = 1,
) -> Loss:
    """On a `PracticeBatch`: as `physics_loss`, of the policy alone."""
    judge = _judge(weights, rollouts, models, accumulation)

    def loss(params, spectral, batch: PracticeBatch, step):
        plain, after = sigma_reparam.fold(params, spectral)
        rng = jax.random.fold_in(jax.random.key(seed), step)
        actions, _ = policy.apply({"params": plain["policy"]}, batch.seen, rngs={"dropout": rng})
        terms, scalars = judge(actions, batch.labels, batch.task, batch.seen.qpos[:, 0], step)
        value, terms = weights.total(terms, step)
        return value, (terms | scalars, after)

    return loss


def _judge(weights: Objective, rollouts: RolloutConfig, models: physics.Model, accumulation: int) -> Callable:
    """(actions, labels, task, joints [b,22] before, step) -> terms of cloning and of the rollouts, what is watched."""
    robot = load_robot()

    def judge(actions: Actions, labels: ActionLabels, task: Task, q: Array, step: Array) -> tuple[dict, dict]:
        terms, scalars = action_losses(actions, labels, robot), {}
        if weights.has(ROLLOUT):
            commands = played(task.shares, actions.commands, q)
            share = jnp.minimum(step.astype(jnp.float32) / (rollouts.curriculum_steps * accumulation + 1e-6), 1.0)
            terms[ROLLOUT], scalars = rollout_loss(rollouts, models, commands, task, share)
        return terms, scalars

    return judge
