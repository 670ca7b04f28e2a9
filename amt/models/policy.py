"""The policy: what was seen in the frames so far, in; what the robot is to do, out. For sequences and for streams."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from amt.models.actions import ActionDecoder
from amt.models.perception import PerceptionOutput
from amt.models.temporal import MODALITIES, KeysValues, Observation, TemporalFusion, empty_past, exactly
from amt.models.vmt import VmtOutput
from amt.structs import Actions

NUM_SIZED = 22  # rows of a table of half extents: no object, and YCB's 21


@flax.struct.dataclass
class PolicyCache:
    """What a stream carries from frame to frame; its size does not grow.

    Keys and values of every block, of its window less one frame, and which frames of the longest window had a hand.
    """

    fusion: tuple[KeysValues, ...]
    actions: tuple[KeysValues, ...]
    valid: Bool[Array, "b past"]


class Policy(nn.Module):
    """Temporal fusion, then the action decoder."""

    fusion: TemporalFusion
    actions: ActionDecoder

    def __call__(self, seen: Observation, cache: PolicyCache | None = None) -> tuple[Actions, PolicyCache | None]:
        """Actions of [b,t] frames, and what takes the place of `cache` for the frames after them.

        A stream gives a frame (or a few) at a time, begins with `empty_cache`, and answers as the whole sequence would
        at once; without a cache the first frame is the first there is.
        """
        seen = seen.blanked()
        if cache is None:
            tokens, _ = self.fusion(seen, seen.valid)
            return self.actions(tokens, seen.qpos, seen.valid)[0], None
        valid = jnp.concatenate([cache.valid, seen.valid], axis=1)
        tokens, fusion = self.fusion(seen, valid, cache.fusion)
        actions, decoder = self.actions(tokens, seen.qpos, valid, cache.actions)
        return actions, PolicyCache(fusion, decoder, valid[:, seen.valid.shape[1] :])

    @nn.nowrap
    def empty_cache(self, batch_size: int) -> PolicyCache:
        """Of streams that have not begun."""
        parts = (self.fusion, self.actions)
        past = [empty_past(p.block, p.width, p.windows, batch_size, len(MODALITIES)) for p in parts]
        return PolicyCache(*past, jnp.zeros((batch_size, self.fusion.window - 1), bool))


def observe(
    out: PerceptionOutput | VmtOutput,
    T_base_camera: Float[Array, "b t 4 4"],
    half_extents: Float[Array, "22 3"],
    qpos: Float[Array, "b t 22"],
    valid: Bool[Array, "b t"],
    scale: Float[Array, "b t"],
) -> Observation:
    """What the policy is given of b x t crops of right hands, perceived in this order.

    `T_base_camera` takes the frame of the crop's camera, in which perception answers, to the robot's base; all geometry
    goes through it, after distances from the camera were multiplied by `scale`. `half_extents` are those of each YCB
    id, metres (`amt.data.ycb.primitive_table`). Tokens are the mean of the hand's, and means of the objects' and
    contacts' weighed by their confidence. The object is the first query's (`amt.models.objects`); its size is the mean
    over the classes as likely as they are.
    """

    def frames(x: Array) -> Array:
        return x.reshape(*valid.shape, *x.shape[1:])

    out = jax.tree.map(frames, out)
    R, origin = T_base_camera[..., :3, :3], T_base_camera[..., :3, 3]
    objects = out.objects
    likely = jax.nn.softmax(objects.classes[:, :, 0, 1:NUM_SIZED], axis=-1)
    seen = Observation(
        hand=out.hand.tokens.mean(2),
        objects=_mean(objects.tokens, objects.confidence),
        contacts=_mean(out.contacts.tokens, out.contacts.confidence),
        joints=exactly("btij,btnj->btni", R, out.joints) + origin[..., None, :],
        object_position=exactly("btij,btj->bti", R, objects.position[:, :, 0]) + origin,
        object_rotation=exactly("btij,btjk->btik", R, objects.rotation[:, :, 0]),
        object_half=jnp.einsum("btc,ci->bti", likely, half_extents[1:NUM_SIZED]),
        object_confidence=jax.nn.sigmoid(objects.confidence[:, :, 0]),
        camera_position=origin,
        qpos=qpos,
        valid=valid,
    )
    return seen.rescaled(scale)


def _mean(tokens: Float[Array, "b t q d"], confidence: Float[Array, "b t q"]) -> Float[Array, "b t d"]:
    """Weighed by confidence, whose logits these are."""
    weight = jax.nn.sigmoid(confidence)
    return jnp.einsum("btqd,btq->btd", tokens, weight) / (weight.sum(-1, keepdims=True) + 1e-6)
