"""A skinned parametric hand in JAX: parameters in, 21 joints and 778 vertices out.

    shaped = v_template + shapedirs betas,   J = J_regressor shaped
    vertices = LBS(shaped + posedirs vec(R_1..15 - I), J, weights)

Romero, Tzionas and Black, "Embodied Hands", SIGGRAPH Asia 2017. The pose is the MANO layout: 3 axis-angle of
the wrist, then 45 PCA coefficients added to a mean (flat_hand_mean=False); the wrist turns about its own
joint, the translation comes last. Metres and radians; a right hand.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from amt.geometry import rotations as rot
from amt.hand import skeleton
from amt.structs import Array

# The default matmul precision of accelerators (bfloat16, TF32) would move vertices by millimetres.
_einsum = functools.partial(jnp.einsum, precision="highest")


@flax.struct.dataclass(eq=False)
class HandModel:
    """The arrays of a hand model; `amt.hand.load` makes one. `flexion_axes` is explained in `amt.hand.poses`.

    All methods take any batch shape, are differentiable, and compute in the type of their inputs. `posedirs`
    is None for a model without pose correctives.
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

    def __call__(
        self,
        pose: Float[Array, "*batch 48"],
        betas: Float[Array, "*batch 10"],
        transl: Float[Array, "*batch 3"],
    ) -> tuple[Float[jax.Array, "*batch 21 3"], Float[jax.Array, "*batch 778 3"]]:
        """(joints, vertices) of the MANO-layout pose, in the frame that the wrist's rotation maps to."""
        joints, vertices, _ = self.from_rotations(self.rotations(pose), betas, transl)
        return joints, vertices

    def from_rotations(
        self,
        rotations: Float[Array, "*batch 16 3 3"],
        betas: Float[Array, "*batch 10"],
        transl: Float[Array, "*batch 3"],
    ) -> tuple[Float[jax.Array, "*batch 21 3"], Float[jax.Array, "*batch 778 3"], Float[jax.Array, "*batch 16 4 4"]]:
        """(joints, vertices, T_joint): each rotation is relative to its parent, the wrist's to the camera.

        T_joint maps coordinates of a joint's frame (origin at the joint, axes those of the rest pose) to the
        camera.
        """
        model = self._astype(rotations.dtype)
        pose = jnp.vectorize(model._pose_one, signature="(j,a,b),(s),(c)->(k,c),(v,c),(j,d,e)")
        return pose(rotations, betas, transl)

    def rotations(self, pose: Float[Array, "*batch 48"]) -> Float[jax.Array, "*batch 16 3 3"]:
        model = self._astype(pose.dtype)
        fingers = _einsum("...p,pa->...a", pose[..., 3:], model.hands_components)
        fingers = fingers + jnp.broadcast_to(model.hands_mean, fingers.shape)
        axis_angles = jnp.concatenate([pose[..., :3], fingers], -1)
        return rot.from_axis_angle(axis_angles.reshape(*pose.shape[:-1], 16, 3))

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
