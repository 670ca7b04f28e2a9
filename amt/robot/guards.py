"""What the arm keeps away from: singular poses, the table, its own column and links.

Every guard is a shortfall without a unit: 0 where there is room, rising to 1 where there is none.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.robot.kinematics import body_poses
from amt.robot.model import NUM_ARM_JOINTS, NUM_JOINTS, Robot

# Guards rise below these: metres between robot and table, hand and base column, hand and arm links.
TABLE_CLEARANCE, COLUMN_CLEARANCE, LINK_CLEARANCE = 0.08, 0.18, 0.14
MIN_SINE = 0.35  # of the elbow and of the second wrist joint: 20 degrees from a singularity
FINGER_LENGTH = 0.12
ARM_BODIES = ("upper_arm_link", "forearm_link", "wrist_1_link", "wrist_2_link", "wrist_3_link", "palm")


def arm_guards(robot: Robot, q: Float[Array, "*batch 6"]) -> Float[Array, "*batch 14"]:
    """Shortfalls of manipulability [2], of the table [6], of the base column [2] and of the long links [4]."""
    hand = jnp.zeros((*q.shape[:-1], NUM_JOINTS - NUM_ARM_JOINTS), q.dtype)
    poses = body_poses(robot, jnp.concatenate([q, hand], axis=-1), ARM_BODIES)
    at = {name: p for name, (_, p) in poses.items()}
    R, palm = poses["palm"]
    ends = jnp.stack([palm, palm + R[..., 2] * FINGER_LENGTH], axis=-2)
    arm = jnp.stack([at[name] for name in ("forearm_link", "wrist_1_link", "wrist_2_link", "wrist_3_link")], axis=-2)
    # Elbow stretched, or wrist axes 1 and 3 parallel: two factors of the Jacobian's determinant.
    sines = jnp.abs(jnp.sin(q[..., jnp.array([2, 4])]))
    column = jnp.sqrt(jnp.sum(ends[..., :2] ** 2, axis=-1) + 1e-12)
    links = [
        _segment_distance(ends, at[start][..., None, :], at[end][..., None, :])
        for start, end in (("upper_arm_link", "forearm_link"), ("forearm_link", "wrist_1_link"))
    ]
    return jnp.concatenate(
        [
            shortfall(sines, MIN_SINE),
            shortfall(jnp.concatenate([arm, ends], axis=-2)[..., 2], TABLE_CLEARANCE),
            shortfall(column, COLUMN_CLEARANCE),
            *[shortfall(distance, LINK_CLEARANCE) for distance in links],
        ],
        axis=-1,
    )


def shortfall(value: Array, wanted: float) -> Array:
    """0 where `value` reaches `wanted`, rising to 1 at 0 and further below."""
    return jnp.maximum(1 - value / wanted, 0.0)


def _segment_distance(points: Array, start: Array, end: Array) -> Array:
    along = end - start
    share = jnp.sum((points - start) * along, axis=-1) / jnp.sum(along**2, axis=-1)
    nearest = start + jnp.clip(share, 0.0, 1.0)[..., None] * along
    return jnp.sqrt(jnp.sum((points - nearest) ** 2, axis=-1) + 1e-12)
