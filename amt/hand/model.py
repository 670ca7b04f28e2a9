"""A skinned parametric hand in JAX: parameters in, 21 joints and 778 vertices out.

    shaped = v_template + shapedirs betas,   J = J_regressor shaped
    vertices = LBS(shaped + posedirs vec(R_1..15 - I), J, weights)

Romero, Tzionas and Black, "Embodied Hands", SIGGRAPH Asia 2017. The pose is the MANO layout: 3 axis-angle of
the wrist, then 45 PCA coefficients added to a mean (flat_hand_mean=False); the wrist turns about its own
joint, the translation comes last. Metres and radians; a right hand.
"""

import functools
import hashlib

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from amt.geometry import rotations as rot
from amt.hand import skeleton
from amt.structs import Array

# The default matmul precision of accelerators (bfloat16, TF32) would move vertices by millimetres.
_einsum = functools.partial(jnp.einsum, precision="highest")

_MIRROR = np.array([-1.0, 1.0, 1.0], np.float32)  # points; axis-angle vectors take its negative (`amt.geometry.mirror`)
# What the numbers of a label mean hangs on these; the flexion axes follow from them.
_IDENTITY = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "faces", "hands_mean", "hands_components")


@flax.struct.dataclass(eq=False)
class HandModel:
    """Arrays of a hand model; `amt.hand.load` makes one. `flexion_axes` is explained in `amt.hand.poses`.

    All methods take any batch shape, are differentiable, and compute in the type of their inputs. `posedirs`
    is None for a model without pose correctives. `left` is a left-hand model of its own, mirrored (`mirrored`), so that
    it poses mirror images of left hands from left-hand coefficients; None: left hands are mirrored right ones.
    """

    v_template: Float[Array, "778 3"]
    shapedirs: Float[Array, "778 3 10"]
    posedirs: Float[Array, "778 3 135"] | None
    J_regressor: Float[Array, "16 778"]
    weights: Float[Array, "778 16"]
    faces: Int[Array, "1538 3"]
    hands_mean: Float[Array, "45"]
    hands_components: Float[Array, "45 45"]
    flexion_axes: Float[Array, "16 3"]
    tip_vertices: tuple[int, ...] = flax.struct.field(pytree_node=False)
    left: "HandModel | None" = None

    @property
    def fingerprint(self) -> str:
        """Content hash, 16 hexadecimal digits: equal for models that pose the same hand from the same numbers.

        `left` is not part of it: it has its own.
        """
        digest = hashlib.sha256(repr(tuple(self.tip_vertices)).encode())
        for name in _IDENTITY:
            if (array := getattr(self, name)) is not None:
                kind = np.int32 if name == "faces" else np.float32
                digest.update(name.encode() + np.ascontiguousarray(array, kind).tobytes())
        return digest.hexdigest()[:16]

    def mirrored(self) -> "HandModel":
        """Model of the mirror image (x negated): the same coefficients pose the mirrored hand.

        Turns a left-hand model into a right-hand one. With S = diag(-1, 1, 1) points become S p, and rotations, hence
        the pose correctives' inputs, S R S; axis-angle vectors, hence mean and components of the pose, become -S a.
        """
        pair = np.outer(_MIRROR, _MIRROR).ravel()
        return self.replace(
            v_template=self.v_template * _MIRROR,
            shapedirs=self.shapedirs * _MIRROR[:, None],
            posedirs=None if self.posedirs is None else self.posedirs * _MIRROR[:, None] * np.tile(pair, 15),
            faces=self.faces[:, ::-1],
            hands_mean=self.hands_mean * np.tile(-_MIRROR, 15),
            hands_components=self.hands_components * np.tile(-_MIRROR, 15),
            flexion_axes=self.flexion_axes * -_MIRROR,
            left=None,
        )

    def __call__(
        self,
        pose: Float[Array, "*batch 48"],
        betas: Float[Array, "*batch 10"],
        transl: Float[Array, "*batch 3"],
    ) -> tuple[Float[jax.Array, "*batch 21 3"], Float[jax.Array, "*batch 778 3"]]:
        """Joints and vertices of the MANO-layout pose, in the frame that the wrist's rotation maps to."""
        joints, vertices, _ = self.from_rotations(self.rotations(pose), betas, transl)
        return joints, vertices

    def from_rotations(
        self,
        rotations: Float[Array, "*batch 16 3 3"],
        betas: Float[Array, "*batch 10"],
        transl: Float[Array, "*batch 3"],
        left_basis: Bool[Array, "*batch"] | None = None,
    ) -> tuple[Float[jax.Array, "*batch 21 3"], Float[jax.Array, "*batch 778 3"], Float[jax.Array, "*batch 16 4 4"]]:
        """Joints, vertices and T_joint: each rotation is relative to its parent, the wrist's to the camera.

        T_joint maps coordinates of a joint's frame (origin at the joint, axes those of the rest pose) to the
        camera. Where `left_basis`, `betas` are those of the model `left`, which is posed instead.
        """
        model = self._astype(rotations.dtype)
        pose = jnp.vectorize(model._pose_one, signature="(j,a,b),(s),(c)->(k,c),(v,c),(j,d,e)")
        posed = pose(rotations, betas, transl)
        if self.left is None or left_basis is None:
            return posed
        return _choose(left_basis, self.left.from_rotations(rotations, betas, transl), posed)

    def rotations(
        self, pose: Float[Array, "*batch 48"], left_basis: Bool[Array, "*batch"] | None = None
    ) -> Float[jax.Array, "*batch 16 3 3"]:
        """Rotation of each joint relative to its parent; where `left_basis`, `pose` has coefficients of `left`."""
        model = self._astype(pose.dtype)
        fingers = _einsum("...p,pa->...a", pose[..., 3:], model.hands_components)
        fingers = fingers + jnp.broadcast_to(model.hands_mean, fingers.shape)
        axis_angles = jnp.concatenate([pose[..., :3], fingers], -1)
        rotations = rot.from_axis_angle(axis_angles.reshape(*pose.shape[:-1], 16, 3))
        if self.left is None or left_basis is None:
            return rotations
        return _choose(left_basis, self.left.rotations(pose), rotations)

    def to_pca(self, rotations: Float[Array, "*batch 15 3 3"]) -> Float[jax.Array, "*batch 45"]:
        """The coefficients that give these 15 rotations: the inverse of `rotations`."""
        model = self._astype(rotations.dtype)
        axis_angles = rot.to_axis_angle(rotations)
        axis_angles = axis_angles.reshape(*axis_angles.shape[:-2], 45)
        offsets = axis_angles - jnp.broadcast_to(model.hands_mean, axis_angles.shape)
        return _einsum("...a,ap->...p", offsets, jnp.linalg.inv(model.hands_components))

    def _astype(self, dtype) -> "HandModel":
        def cast(x):
            return jnp.asarray(x, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

        return jax.tree.map(cast, self)

    def _pose_one(self, rotations, betas, transl):
        shaped = self.v_template + _einsum("vcs,s->vc", self.shapedirs, betas)
        rest_joints = _einsum("jv,vc->jc", self.J_regressor, shaped)
        if self.posedirs is not None:
            bend = (rotations[1:] - jnp.eye(3, dtype=rotations.dtype)[None]).reshape(135)
            shaped = shaped + _einsum("vcp,p->vc", self.posedirs, bend)
        R, t = _forward_kinematics(rotations, rest_joints)
        t = t + transl[None]
        # Skinning blends the transforms that take the rest pose to this pose, one 3x4 matrix per joint.
        moved = t - _einsum("jab,jb->ja", R, rest_joints)
        blended = _einsum("vj,jk->vk", self.weights, jnp.concatenate([R.reshape(16, 9), moved], 1))
        vertices = _einsum("vab,vb->va", blended[:, :9].reshape(-1, 3, 3), shaped) + blended[:, 9:]
        tips = vertices[jnp.array(self.tip_vertices)]
        joints = jnp.concatenate([t, tips])[jnp.array(skeleton.JOINTS_16_TO_21)]
        last_row = jnp.broadcast_to(jnp.array([0, 0, 0, 1], R.dtype), (16, 1, 4))
        T_joint = jnp.concatenate([jnp.concatenate([R, t[..., None]], -1), last_row], -2)
        return joints, vertices, T_joint


def _choose(first, chosen, others):
    """Entries of one pytree where `first`, of the other elsewhere; leaves have more axes than `first`."""

    def pick(x, y):
        return jnp.where(jnp.reshape(first, (*jnp.shape(first), *(1,) * (x.ndim - jnp.ndim(first)))), x, y)

    return jax.tree.map(pick, chosen, others)


def _forward_kinematics(rotations, rest_joints):
    """Global rotations [16,3,3] and positions [16,3]; the five fingers move together, one level at a time."""
    R_chain = rotations[1:].reshape(5, 3, 3, 3)
    rest = rest_joints[1:].reshape(5, 3, 3)
    root = jnp.broadcast_to(rest_joints[0], (5, 1, 3))
    offsets = jnp.diff(jnp.concatenate([root, rest], 1), axis=1)
    R = jnp.broadcast_to(rotations[0], (5, 3, 3))
    t = root[:, 0]
    Rs, ts = [], []
    for level in range(3):
        t = t + _einsum("fab,fb->fa", R, offsets[:, level])
        R = _einsum("fab,fbc->fac", R, R_chain[:, level])
        Rs.append(R)
        ts.append(t)
    R = jnp.concatenate([rotations[:1], jnp.stack(Rs, 1).reshape(15, 3, 3)])
    t = jnp.concatenate([rest_joints[:1], jnp.stack(ts, 1).reshape(15, 3)])
    return R, t
