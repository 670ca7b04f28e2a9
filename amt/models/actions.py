"""What to do: 10 queries, one for each control step to come, and the joint commands that come out of them."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from amt.geometry import rotations
from amt.models.hand import HAND_SCALE, IDENTITY_6D
from amt.models.layers import BlockConfig, Dense, LayerNorm, Mlp, head
from amt.models.temporal import KeysValues, exactly, through_frame_blocks
from amt.robot.kinematics import forward
from amt.robot.model import NUM_ARM_JOINTS, NUM_JOINTS, Robot
from amt.structs import Actions

NUM_GRASPS = 10  # kinds of grasp
INSIDE = 1.0 - 1e-6  # share of the room that a change may take: rounding stays within the limits
LEAST_ROOM = 1e-6  # radians, to divide by


def within_limits(
    qpos: Float[Array, "*batch n"], change: Float[Array, "*batch n"], limits: Float[np.ndarray, "n 2"]
) -> Float[Array, "*batch n"]:
    """Joints changed by about `change` where there is room, and never out of their limits; all radians.

    A change of 0 gives `qpos` itself. The room towards the limit on the change's side is taken up by an arctangent of
    slope 1 at 0: two times differentiable, and with a slope above 0 for every change, which falls with its square (a
    tanh's is rounded to 0). At a limit no change leads outwards, and none has a slope there.
    """
    lower, upper = (jnp.broadcast_to(x.astype(qpos.dtype), qpos.shape) for x in (limits[:, 0], limits[:, 1]))
    qpos = jnp.clip(qpos, lower, upper)
    room = jnp.where(change > 0, upper - qpos, qpos - lower)
    taken = jnp.arctan(change * (jnp.pi / 2) / jnp.maximum(room, LEAST_ROOM)) / (jnp.pi / 2)
    return qpos + room * taken * INSIDE


class ActionDecoder(nn.Module):
    """Queries for `num_steps` control steps attend to each other and to the fused tokens of the window; then heads.

    The queries know the robot's state: its joints, -1..1 between their limits, and the pose of its wrist. Two small
    networks, with `arm_dims` and `hand_dims` as hidden layers, turn each into changes of that state. Heads start at the
    state too: the end effector where it is, the approach along the palm's normal.
    """

    width: int
    depth: int
    block: BlockConfig
    window: int
    num_steps: int
    arm_dims: Sequence[int]
    hand_dims: Sequence[int]
    robot: Robot

    @property
    def windows(self) -> tuple[int, ...]:
        return (self.window,) * self.depth

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b t n d"],
        qpos: Float[Array, "b t 22"],
        valid: Bool[Array, "b past_and_t"],
        past: Sequence[KeysValues] | None = None,
    ) -> tuple[Actions, tuple[KeysValues, ...] | None]:
        b, t = qpos.shape[:2]
        T_base_wrist = forward(self.robot, qpos, ("wrist",))["wrist"]
        R, origin = T_base_wrist[..., :3, :3], T_base_wrist[..., :3, 3]
        middle, half = jnp.asarray(self.robot.limits.mean(1), qpos.dtype), jnp.asarray(np.ptp(self.robot.limits, 1) / 2)
        joints = (qpos - middle[None, None]) / half.astype(qpos.dtype)[None, None]
        state = jnp.concatenate([joints, origin, rotations.to_6d(R)], axis=-1)
        queries = self.param("queries", nn.initializers.normal(0.02), (self.num_steps, self.width))
        x = queries[None, None] + Dense(self.width, name="state")(state)[:, :, None]
        x, kept = through_frame_blocks(self.block, self.windows, x, valid, past, tokens)
        x = LayerNorm()(x)
        known = jnp.concatenate([x, jnp.broadcast_to(state[:, :, None], (b, t, self.num_steps, state.shape[-1]))], -1)
        change = jnp.concatenate(
            [
                Mlp(self.arm_dims, NUM_ARM_JOINTS, name="arm")(known),
                Mlp(self.hand_dims, NUM_JOINTS - NUM_ARM_JOINTS, name="hand")(known),
            ],
            axis=-1,
        )
        now = jnp.broadcast_to(qpos[:, :, None], change.shape)
        turn = rotations.from_6d(head(6)(x) + jnp.asarray(IDENTITY_6D)[None, None, None])
        approach = head(3)(x) + jnp.asarray((1.0, 0.0, 0.0))[None, None, None]
        approach = approach / jnp.sqrt((approach * approach).sum(-1, keepdims=True) + 1e-12)
        actions = Actions(
            commands=within_limits(now, change, self.robot.limits),
            position=origin[:, :, None] + head(3)(x) / HAND_SCALE,
            rotation=exactly("btij,btsjk->btsik", R, turn),
            grasp=head(NUM_GRASPS)(x),
            aperture=jax.nn.softplus(head(1)(x)[..., 0]) / HAND_SCALE,
            approach=exactly("btij,btsj->btsi", R, approach),
            force=jax.nn.softplus(head(1)(x)[..., 0]),
            confidence=head(1, bias=2.0)(x)[..., 0],
        )
        return actions, kept
