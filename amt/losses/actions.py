"""Terms of behaviour cloning: the commands of a chunk, what they bring about, and what they are for."""

import flax.struct
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from amt.geometry.rotations import geodesic_angle
from amt.losses.common import DECIMETRES, distance, masked_mean, smooth_l1
from amt.robot import forward
from amt.robot.model import FINGERS, NUM_ARM_JOINTS, NUM_JOINTS, Robot
from amt.structs import Actions

TIPS = tuple(f"{finger}_tip" for finger in FINGERS)
KNEE = 0.1  # radians from which errors of a joint count linearly


@flax.struct.dataclass
class ActionLabels:
    """What `amt.structs.Actions` should be for t frames, in its units; `grasp` an index.

    `lifts` says whether the demonstrated commands lift the object, `valid` whether a frame teaches commands at all.
    """

    commands: Float[Array, "b t n 22"]
    position: Float[Array, "b t n 3"]
    rotation: Float[Array, "b t n 3 3"]
    grasp: Int[Array, "b t n"]
    aperture: Float[Array, "b t n"]
    approach: Float[Array, "b t n 3"]
    force: Float[Array, "b t n"]
    lifts: Bool[Array, "b t"]
    valid: Bool[Array, "b t"]


def action_losses(actions: Actions, labels: ActionLabels, robot: Robot) -> dict[str, Float[Array, ""]]:
    """Means over steps and valid frames; decimetres and radians, so that all are of order one at the start.

    action_arm, action_fingers: smooth L1 of joint commands; whole turns of the arm's joints are none. action_wrist,
    action_tips: distance to where the demonstrated commands put wrist and fingertips, by forward kinematics.
    action_position, _rotation, _grasp, _aperture, _approach, _force: the high-level heads; of the force its logarithm,
    as jammed fingers press with hundreds of newtons. action_confidence: whether the demonstration lifts.
    action_velocity: second differences of a chunk's commands, square root of their mean square.
    """
    off = actions.commands - labels.commands
    turns = (
        jnp.round(off / (2 * jnp.pi)) * (jnp.arange(NUM_JOINTS) < NUM_ARM_JOINTS).astype(off.dtype)[None, None, None]
    )
    off = smooth_l1(off - 2 * jnp.pi * turns, KNEE)
    made, wanted = (forward(robot, x.commands, ("wrist", *TIPS)) for x in (actions, labels))

    def apart(*names: str) -> Array:
        each = [distance(made[name][..., :3, 3], wanted[name][..., :3, 3]) for name in names]
        return DECIMETRES * jnp.mean(jnp.stack(each), axis=0)

    steps = {
        "action_arm": off[..., :NUM_ARM_JOINTS].mean(-1),
        "action_fingers": off[..., NUM_ARM_JOINTS:].mean(-1),
        "action_wrist": apart("wrist"),
        "action_tips": apart(*TIPS),
        "action_position": DECIMETRES * distance(actions.position, labels.position),
        "action_rotation": geodesic_angle(actions.rotation, labels.rotation),
        "action_grasp": optax.softmax_cross_entropy_with_integer_labels(actions.grasp, labels.grasp),
        "action_aperture": DECIMETRES * jnp.abs(actions.aperture - labels.aperture),
        "action_approach": 1 - jnp.sum(actions.approach * labels.approach, axis=-1),
        "action_force": smooth_l1(jnp.log1p(actions.force) - jnp.log1p(labels.force)),
    }
    found = {name: masked_mean(x.mean(-1), labels.valid) for name, x in steps.items()}
    lifts = jnp.broadcast_to(labels.lifts[..., None].astype(off.dtype), actions.confidence.shape)
    found["action_confidence"] = jnp.mean(optax.sigmoid_binary_cross_entropy(actions.confidence, lifts))
    bent = actions.commands[..., 2:, :] - 2 * actions.commands[..., 1:-1, :] + actions.commands[..., :-2, :]
    square = masked_mean(jnp.mean(bent**2, axis=(-1, -2)), labels.valid)
    found["action_velocity"] = jnp.sqrt(square + 1e-12)
    return found
