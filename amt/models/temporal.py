"""Temporal fusion: what was seen in the frames of a window, as four tokens a frame; causal, for sequences and streams.

A frame sees itself and the frames before it, as far back as a layer's window reaches. Frames without a hand are seen by
none but themselves, and enter as zeros. Positions are rotary and count from the oldest frame at hand, so that a stream
of any length is exact: only differences matter.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from amt.geometry import rotations
from amt.models.hand import HAND_SCALE
from amt.models.layers import Attention, Block, BlockConfig, Dense, LayerNorm
from amt.robot.human import palm_rotation

MODALITIES = ("hand", "objects", "contacts", "geometry")
exactly = functools.partial(jnp.einsum, precision="highest")  # accelerators round metres to millimetres else
GRIP = np.array([4, 4, 8, 12])  # joints about whose middle a hand grips: thumb (twice), index, middle finger's tips
LYING = 0.03  # metres above the table of what lies on it
FARTHEST = 3.0  # times as far as a point, where its line of sight meets the table no nearer
LONGEST = 100.0  # frames, of the rotary wavelengths over 2 pi, which begin at 1


@flax.struct.dataclass
class Observation:
    """What the policy is given of t frames: tokens of perception, and where things are in the robot's base frame.

    `joints` are metres. `object_*` is the one object that matters: its centre, R_base_object, half extents along its
    axes in metres, and a confidence in 0..1; where that is 0 there is none. `camera_position` is the camera's centre.
    `qpos` are the robot's joints as last
    commanded, radians in robot order. Where `valid` is False no hand was seen, and nothing but `qpos` means anything.
    """

    hand: Float[Array, "b t d"]
    objects: Float[Array, "b t d"]
    contacts: Float[Array, "b t e"]
    joints: Float[Array, "b t 21 3"]
    object_position: Float[Array, "b t 3"]
    object_rotation: Float[Array, "b t 3 3"]
    object_half: Float[Array, "b t 3"]
    object_confidence: Float[Array, "b t"]
    camera_position: Float[Array, "b t 3"]
    qpos: Float[Array, "b t 22"]
    valid: Bool[Array, "b t"]

    def blanked(self) -> "Observation":
        """With zeros where no hand was seen: not even a NaN of there reaches a gradient."""

        def blank(x):
            return jnp.where(self.valid.reshape(*self.valid.shape, *[1] * (x.ndim - 2)), x, jnp.zeros_like(x))

        return jax.tree.map(blank, self).replace(qpos=self.qpos, valid=self.valid)

    def rescaled(self, scale: Float[Array, "b t"]) -> "Observation":
        """With hand and object so many times as far from the camera."""
        origin, scale = self.camera_position, scale[..., None]
        joints = origin[..., None, :] + scale[..., None] * (self.joints - origin[..., None, :])
        return self.replace(joints=joints, object_position=origin + scale * (self.object_position - origin))


@flax.struct.dataclass
class KeysValues:
    """Of a layer's last frames, the oldest first: their n tokens as keys, not yet turned to a position, and values."""

    keys: Float[Array, "b past n heads c"]
    values: Float[Array, "b past n heads c"]


def on_table(points: Float[Array, "*b 3"], camera: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Where lines of sight from the camera to points meet the plane `LYING` above the table, all in the base frame.

    Depth is what one camera sees worst; what lies on a table has none to guess. Lines that do not go down end at
    `FARTHEST`.
    """
    way = points - camera
    down = jnp.maximum(camera[..., 2:] - points[..., 2:], 1e-3)
    return camera + way * jnp.clip((camera[..., 2:] - LYING) / down, 0.0, FARTHEST)


def geometry_numbers(seen: Observation) -> Float[Array, "b t 95"]:
    """The geometry that an action needs, of order one: metres in the base frame, decimetres in the palm's.

    In this order: 20 joints from the wrist, in the palm's frame, decimetres (60); the wrist in the base frame, metres
    (3), and R_base_palm in 6D (6), both as `amt.robot.human.palm_rotation` has the palm; the object's centre in the
    base frame, metres (3), and from the wrist in the palm's frame, decimetres (3); R_base_object in 6D (6); half
    extents, decimetres (3); confidence (1). Then where the line of sight to the place between thumb, index and middle
    finger meets the table (`on_table`), metres (2) and from the wrist in the palm's frame, decimetres (3), and the same
    of the object (5). Without an object its 21 numbers are 0.
    """
    palm = palm_rotation(seen.joints, "right")
    wrist = seen.joints[..., 0, :]

    def from_wrist(points):
        return exactly("btji,btnj->btni", palm, points - wrist[..., None, :]) * HAND_SCALE

    def table_numbers(point):
        there = on_table(point, seen.camera_position)
        return jnp.concatenate([there[..., :2], from_wrist(there[..., None, :])[..., 0, :]], axis=-1)

    fingers = from_wrist(seen.joints[..., 1:, :])
    grip = table_numbers(seen.joints[..., GRIP, :].mean(-2))
    thing = [
        seen.object_position,
        from_wrist(seen.object_position[..., None, :])[..., 0, :],
        rotations.to_6d(seen.object_rotation),
        seen.object_half * HAND_SCALE,
        seen.object_confidence[..., None],
        table_numbers(seen.object_position),
    ]
    thing = jnp.concatenate(thing, axis=-1)
    thing = jnp.where(seen.object_confidence[..., None] > 0, thing, jnp.zeros_like(thing))
    hand = [fingers.reshape(*wrist.shape[:2], 60), wrist, rotations.to_6d(palm), grip]
    return jnp.concatenate([*hand, thing], axis=-1)


def visible(valid: Bool[Array, "b past_and_t"], num_frames: int, window: int) -> Bool[Array, "b t past_and_t"]:
    """Which frames each of the last `num_frames` sees: no later ones, `window` with itself, valid ones and itself."""
    total = valid.shape[1]
    age = jnp.arange(total - num_frames, total)[:, None] - jnp.arange(total)[None]
    return ((age >= 0) & (age < window))[None] & (valid[:, None] | (age == 0)[None])


def turned(x: Float[Array, "b t n heads c"], positions: Int[Array, " t"]) -> Float[Array, "b t n heads c"]:
    """Rotary positions: pairs of features turned by angles that grow with the frame (Su et al. 2021, RoFormer)."""
    half = x.shape[-1] // 2
    speed = LONGEST ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = (positions.astype(jnp.float32)[:, None] * speed[None])[None, :, None, None]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)


class FrameAttention(Attention):
    """Attention of the tokens of t frames to those of the context's t frames and of the `past` frames before them."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t n d"],
        context: Float[Array, "b t m e"],
        sees: Bool[Array, "b t past_and_t"],
        past: KeysValues | None = None,
    ) -> tuple[Float[Array, "b t n d"], KeysValues | None]:
        """The answer, and what takes the place of `past` for the frames to come."""
        b, t, n, _ = x.shape
        m = context.shape[2]
        query, key, value = self.project(x.reshape(b, t * n, -1), context.reshape(b, t * m, -1))
        query, key, value = (y.reshape(b, t, -1, *y.shape[2:]) for y in (query, key, value))
        kept = None
        if past is not None:
            key, value = (jnp.concatenate(pair, axis=1) for pair in ((past.keys, key), (past.values, value)))
            kept = KeysValues(key[:, t:], value[:, t:])
        total = key.shape[1]
        query, key = turned(query, jnp.arange(total - t, total)), turned(key, jnp.arange(total))
        query, key, value = (y.reshape(b, -1, *y.shape[3:]) for y in (query, key, value))
        sees = jnp.repeat(jnp.repeat(sees, n, axis=1), m, axis=2)
        self.store_entropy(query, key, sees)
        return self.attend(query, key, value, sees).reshape(x.shape), kept


class FrameBlock(Block):
    """A block over frames: their tokens attend to each other; or, given `context`, within the frame and to that."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t n d"],
        sees: Bool[Array, "b t past_and_t"],
        past: KeysValues | None = None,
        context: Float[Array, "b t m e"] | None = None,
    ) -> tuple[Float[Array, "b t n d"], KeysValues | None]:
        heads, float8 = self.config.num_heads, self.config.float8
        y = self.normed(x)
        if context is None:
            out, kept = FrameAttention(heads, float8, name="self_attention")(y, y, sees, past)
        else:
            one = y.reshape(-1, *y.shape[2:])
            own = Attention(heads, float8, name="self_attention")(one, one)
            x = x + self.drop(own.reshape(x.shape), x.dtype)
            y, context = self.normed(x), context.astype(self.config.compute_dtype)
            out, kept = FrameAttention(heads, float8, name="cross_attention")(y, context, sees, past)
        return self.feed_forward(x + self.drop(out, x.dtype)), kept


def through_frame_blocks(
    config: BlockConfig,
    windows: Sequence[int],
    x: Float[Array, "b t n d"],
    valid: Bool[Array, "b past_and_t"],
    past: Sequence[KeysValues] | None = None,
    context: Float[Array, "b t m e"] | None = None,
) -> tuple[Float[Array, "b t n d"], tuple[KeysValues, ...] | None]:
    """Through a block for each of `windows`, which become parts of the module whose method calls this.

    With `past`, which holds a window less one frame for each block, `valid` begins with the longest of these.
    """
    kept = []
    for k, window in enumerate(windows):
        before = 0 if past is None else window - 1
        sees = visible(valid[:, valid.shape[1] - x.shape[1] - before :], x.shape[1], window)
        block = nn.remat(FrameBlock) if k < round(config.remat * len(windows)) else FrameBlock
        x, after = block(config, name=f"Block_{k}")(x, sees, None if past is None else past[k], context)
        kept.append(after)
    return x, None if past is None else tuple(kept)


def empty_past(
    config: BlockConfig, width: int, windows: Sequence[int], batch_size: int, num_tokens: int
) -> tuple[KeysValues, ...]:
    """What `through_frame_blocks` keeps before the first frame; every array is one of its own, to be donated."""
    heads = config.num_heads
    shapes = [(batch_size, window - 1, num_tokens, heads, width // heads) for window in windows]
    return tuple(KeysValues(*(jnp.zeros(shape, config.compute_dtype) for _ in range(2))) for shape in shapes)


class TemporalFusion(nn.Module):
    """Hand, objects, contacts and geometry of every frame, a token each, through blocks over frames.

    The first half of the blocks sees `short_window` frames, the second `window`.
    """

    width: int
    depth: int
    block: BlockConfig
    short_window: int
    window: int

    @property
    def windows(self) -> tuple[int, ...]:
        short = self.depth // 2
        return (self.short_window,) * short + (self.window,) * (self.depth - short)

    @nn.compact
    def __call__(
        self, seen: Observation, valid: Bool[Array, "b past_and_t"], past: Sequence[KeysValues] | None = None
    ) -> tuple[Float[Array, "b t 4 d"], tuple[KeysValues, ...] | None]:
        geometry = nn.relu(Dense(self.width, name="measures")(geometry_numbers(seen)))
        inputs = (seen.hand, seen.objects, seen.contacts, geometry)
        tokens = [Dense(self.width, name=name)(x) for name, x in zip(MODALITIES, inputs, strict=True)]
        x = jnp.stack(tokens, axis=2)
        x = x + self.param("modalities", nn.initializers.normal(0.02), (len(MODALITIES), self.width))[None, None]
        x, kept = through_frame_blocks(self.block, self.windows, x, valid, past)
        return LayerNorm()(x), kept
