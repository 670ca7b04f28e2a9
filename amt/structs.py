"""The typed pytrees that travel between the parts of amt, and the conventions they share.

units           metres, radians, seconds, newtons, pixels; a name says so only when it differs (`_mm`, `_px`)
camera frame    OpenCV: x right, y down, z forward; `K` is 3x3 in pixels
transforms      `T_world_camera` maps camera coordinates to world coordinates; rotations `R_a_b`; quaternions wxyz
6D rotation     the first two columns of the matrix, Gram-Schmidt back
21 joints       wrist, then thumb, index, middle, ring, little x (mcp, pip, dip, tip): the DexYCB order
16 hand joints  MANO order: wrist, index, middle, little, ring, thumb (x3)
object pose     [R|t] 3x4, model to camera
images          host: uint8 NHWC; device: normalised float
missing labels  a boolean `*_valid` mask; every loss and metric is masked
left hands      mirrored at the border (`amt.geometry.mirror`), processed as right hands, mirrored back
robot order     ur5e 6 joints base to wrist, then allegro 16: index, middle, ring, thumb
"""

import flax.struct
import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Array = jax.Array | np.ndarray


@flax.struct.dataclass
class Camera:
    """A pinhole camera without distortion: `K` in pixels, and where the camera stands in the world."""

    K: Float[Array, "*batch 3 3"]
    T_world_camera: Float[Array, "*batch 4 4"]


@flax.struct.dataclass
class HandPose:
    """A hand in the camera frame; `joints` and `vertices` are what the parameters give, or better estimates.

    `global_orient` is R_camera_hand; `hand_pose` holds the 15 joint rotations in MANO order, each relative to its
    parent. A hand with `is_left` has its parameters in the mirrored (right-hand) frame, and `joints`, `vertices` in
    the real camera frame. Where `valid` is False nothing else means anything.
    """

    global_orient: Float[Array, "*batch 3 3"]
    hand_pose: Float[Array, "*batch 15 3 3"]
    betas: Float[Array, "*batch 10"]
    transl: Float[Array, "*batch 3"]
    joints: Float[Array, "*batch 21 3"]
    vertices: Float[Array, "*batch 778 3"]
    is_left: Bool[Array, "*batch"]
    valid: Bool[Array, "*batch"]


@flax.struct.dataclass
class ObjectPoses:
    """Objects in the camera frame: [R|t] model to camera, the YCB id (1..21, 0 is none), confidence in 0..1."""

    pose: Float[Array, "*batch n 3 4"]
    ycb_ids: Int[Array, "*batch n"]
    confidence: Float[Array, "*batch n"]
    valid: Bool[Array, "*batch n"]


@flax.struct.dataclass
class Contacts:
    """Contact points in the camera frame; `kind` indexes none, light, firm, manipulation; force in newtons.

    A `kind` of -1 and a force of NaN are not known.
    """

    points: Float[Array, "*batch c 3"]
    confidence: Float[Array, "*batch c"]
    kind: Int[Array, "*batch c"]
    force: Float[Array, "*batch c 3"]


@flax.struct.dataclass
class Batch:
    """One training batch: a crop, the virtual camera that took it, labels in that camera's frame; and a whole frame.

    Left hands are already mirrored. `object_pose` is model to crop camera; `hand_pose` is the MANO layout in the frame
    of the original camera (3 axis-angle, 45 PCA), `R_crop_camera` takes it to the crop's; where `left_basis` it and
    `betas` are coefficients of `HandModel.left`. `hand_visible` is False for
    a crop of something else, `shows_left` True where the side was guessed wrong on purpose: such a crop teaches nothing
    but the side. Contacts are those with the grasped object: points, the hand's force on it in newtons, and the kind as
    in `Contacts`. Where `contact_known` is False nobody simulated them, and `amt.losses.labels` finds points by
    geometry; a slot that is not valid is no contact, of the kind none, or -1 where kinds are not known. `frame` is the
    whole image fitted into a square; `frame_joints` are 2D joints in its sides (0..1), valid where they lie inside.
    Every label has its mask. When one component is trained alone, the other's fields are None. `point_noise` (3 metres,
    2 pixels; None: none) is added to what the refiner starts from.
    """

    image: UInt8[Array, "batch size size 3"]
    K: Float[Array, "batch 3 3"]
    R_crop_camera: Float[Array, "batch 3 3"]
    joints_3d: Float[Array, "batch 21 3"]
    joints_2d: Float[Array, "batch 21 2"]
    joints_valid: Bool[Array, " batch"]
    hand_visible: Bool[Array, " batch"]
    shows_left: Bool[Array, " batch"]
    hand_pose: Float[Array, "batch 48"]
    betas: Float[Array, "batch 10"]
    hand_pose_valid: Bool[Array, " batch"]
    left_basis: Bool[Array, " batch"]
    object_pose: Float[Array, "batch n 3 4"]
    object_ids: Int[Array, "batch n"]
    object_valid: Bool[Array, "batch n"]
    grasped: Int[Array, " batch"]
    contact_points: Float[Array, "batch c 3"]
    contact_force: Float[Array, "batch c 3"]
    contact_kind: Int[Array, "batch c"]
    contact_valid: Bool[Array, "batch c"]
    contact_known: Bool[Array, " batch"]
    frame: UInt8[Array, "batch side side 3"]
    frame_joints: Float[Array, "batch 21 2"]
    frame_joints_valid: Bool[Array, "batch 21"]
    frame_has_hand: Bool[Array, " batch"]
    frame_known: Bool[Array, " batch"]
    frame_is_left: Bool[Array, " batch"]
    point_noise: Float[Array, "batch 21 5"] | None = None


@flax.struct.dataclass
class Prediction:
    """What was seen in T frames: hand, objects and contacts in the frame of `camera`.

    `side_confidence` is the probability that each frame, on its own, gives to the side of `hand.is_left`.
    """

    hand: HandPose
    joint_confidence: Float[Array, "*batch 21"]
    side_confidence: Float[Array, "*batch"]
    objects: ObjectPoses
    contacts: Contacts
    camera: Camera


@flax.struct.dataclass
class Actions:
    """What the robot is to do in the next n control steps, as seen from each frame; all in the robot's base frame.

    `commands` are joint position targets in robot order, radians, within the limits. The rest says what they are for:
    `position` (metres) and `rotation` (R_base_wrist) of the end effector, the `wrist` frame of `amt.robot.model`;
    `grasp` logits of its kind; `aperture` between thumb and fingertips, metres; `approach`, the unit vector along which
    the hand comes; `force` with which it presses, newtons; `confidence` a logit.
    """

    commands: Float[Array, "*batch n 22"]
    position: Float[Array, "*batch n 3"]
    rotation: Float[Array, "*batch n 3 3"]
    grasp: Float[Array, "*batch n 10"]
    aperture: Float[Array, "*batch n"]
    approach: Float[Array, "*batch n 3"]
    force: Float[Array, "*batch n"]
    confidence: Float[Array, "*batch n"]


@flax.struct.dataclass
class HandClip:
    """Crops of t frames of a right hand, in order, for a policy; where not `valid` no hand was seen.

    `T_base_crop` takes the frame of each crop's camera to the robot's base. `qpos` is where the robot was when the
    frame was seen, as commanded: the streamed retargeting of what was seen, radians in robot order. `scale` says how
    many times farther from the camera things are than they are seen (`amt.inference.grounding`).
    """

    image: UInt8[Array, "*batch t size size 3"]
    K: Float[Array, "*batch t 3 3"]
    T_base_crop: Float[Array, "*batch t 4 4"]
    qpos: Float[Array, "*batch t 22"]
    valid: Bool[Array, "*batch t"]
    scale: Float[Array, "*batch t"]


@flax.struct.dataclass
class Trajectory:
    """Position targets for the robot: `qpos` [T,22] in radians, in the order of `names`; `time` in seconds.

    Where `valid` is False no hand was seen and the robot holds. `T_base_world` is the robot base the targets are
    meant for: it maps coordinates of the demonstration's world to coordinates of the robot's base.
    """

    time: Float[Array, " T"]
    qpos: Float[Array, "T 22"]
    valid: Bool[Array, " T"]
    T_base_world: Float[Array, "4 4"]
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
