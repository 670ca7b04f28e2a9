"""What a policy is given of a video: the crops where the predictor saw the hand, perceived, in the robot's frame."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from scipy.spatial.transform import Rotation

from amt.data.ycb import primitive_table
from amt.errors import UserError
from amt.inference.grounding import scales
from amt.inference.predictor import Predictor
from amt.models.perception import Amt
from amt.models.policy import observe
from amt.models.temporal import Observation
from amt.robot import HandFit, Robot, fit_hand, load_robot
from amt.robot.model import NUM_JOINTS
from amt.robot.streaming import start, step
from amt.structs import HandClip, Prediction

FIT_FRAMES = 10  # the first with a hand, from which it is found how that hand lies in the robot's
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


def crop_frames(
    T_base_world: Float[np.ndarray, "4 4"],
    T_world_camera: Float[np.ndarray, "t 4 4"],
    R_crop_camera: Float[np.ndarray, "t 3 3"],
    mirrored: bool,
) -> Float[np.ndarray, "t 4 4"]:
    """T_base_crop. Of a `mirrored` (left) hand crops are those of a mirrored camera in the world mirrored in x = 0."""
    T = np.asarray(T_world_camera, np.float64)
    if mirrored:
        T = MIRROR @ T @ MIRROR
    turn = np.tile(np.eye(4), (len(T), 1, 1))
    turn[:, :3, :3] = np.swapaxes(R_crop_camera, 1, 2)
    return (T_base_world @ T @ turn).astype(np.float32)


class Observer:
    """`observer(images, K, T_world_camera, T_base_world, q, prediction)` -> `Observation`, `HandClip`, of one video.

    `T_base_world` maps the world, mirrored in x = 0 if the hand is a left one, to the robot's base. `q` is where the
    robot stands at first. Each frame is looked at once more where the prediction sees the hand; how far away it is is
    corrected by what stands on the table, the base frame's z = 0 (`amt.inference.grounding`).
    """

    def __init__(self, predictor: Predictor):
        self.predictor, self.robot = predictor, load_robot()
        half = jnp.asarray(primitive_table()[0], jnp.float32)

        @jax.jit
        def look(params, clip: HandClip):
            out = predictor.model.apply({"params": params}, clip.image, clip.K, predictor.hand, method=Amt.perceive)
            clip = jax.tree.map(lambda x: x[None], clip)
            return observe(out, clip.T_base_crop, half, clip.qpos, clip.valid, clip.scale)

        self._look = look

    def __call__(
        self,
        images: UInt8[np.ndarray, "t h w 3"],
        K: Float[np.ndarray, "3 3"],
        T_world_camera: Float[np.ndarray, "t 4 4"],
        T_base_world: Float[np.ndarray, "4 4"],
        q: Float[np.ndarray, " 22"],
        prediction: Prediction,
    ) -> tuple[Observation, HandClip]:
        """Raises UserError where no frame has a hand."""
        valid, joints = np.asarray(prediction.hand.valid), np.asarray(prediction.hand.joints)
        if not valid.any():
            raise UserError("policy: no frame has a hand, so there is nothing to do")
        is_left = bool(np.asarray(prediction.hand.is_left)[valid].mean() > 0.5)
        clip = self.crops(images, K, T_world_camera, T_base_world, joints, valid, is_left)
        clip = clip.replace(qpos=np.tile(np.asarray(q, np.float32), (len(images), 1)))
        seen = self.look(clip)
        clip = clip.replace(scale=scales(seen))
        seen = seen.rescaled(jnp.asarray(clip.scale)[None])
        clip = clip.replace(qpos=followed(self.robot, np.asarray(seen.joints[0]), valid, q))
        return seen.replace(qpos=jnp.asarray(clip.qpos)[None]), clip

    def crops(
        self,
        images: UInt8[np.ndarray, "t h w 3"],
        K: Float[np.ndarray, "3 3"],
        T_world_camera: Float[np.ndarray, "t 4 4"],
        T_base_world: Float[np.ndarray, "4 4"],
        joints: Float[np.ndarray, "t 21 3"],
        valid: Bool[np.ndarray, " t"],
        is_left: bool,
    ) -> HandClip:
        """Where a hand was seen with these joints (camera frame); in frames without one, where the nearest one was.
        `qpos` is 0, `scale` 1.
        """
        every_K = np.tile(np.asarray(K, np.float64), (len(images), 1, 1))
        boxes = self.predictor.boxes(joints[nearest(valid)], every_K)
        crops = self.predictor.crops(images, every_K, boxes, np.full(len(images), is_left))
        T = crop_frames(T_base_world, T_world_camera, crops.R_crop_camera, is_left)
        nowhere, one = np.zeros((len(images), NUM_JOINTS), np.float32), np.ones(len(images), np.float32)
        return HandClip(crops.image, crops.K, T, nowhere, valid, one)

    def look(self, clip: HandClip) -> Observation:
        """One look at every crop, [1,t]."""
        return self._look(self.predictor.params, clip)


def misplaced(
    robot: Robot,
    seen: Observation,
    home: Float[np.ndarray, " 22"],
    rng: np.random.Generator,
    depth: float,
    angle: float,
    count: int,
) -> list[Observation]:
    """What was seen in a video [t,...], `count` times as if hand and object had been seen elsewhere.

    Distances of either from the camera are scaled by exp of a normal number of deviation `depth`, directions turned by
    a normal rotation vector of deviation `angle`, radians, the same in all frames; `qpos` follows. A network sees what
    it learned from better than what is new: a policy that learns from the former should know what the latter is like.
    """
    camera, valid = np.asarray(seen.camera_position, np.float64), np.asarray(seen.valid)
    fit = first_fit(robot, np.asarray(seen.joints), valid)

    def moved(points: np.ndarray) -> np.ndarray:
        turn = Rotation.from_rotvec(rng.normal(0, angle, 3)).as_matrix() * np.exp(rng.normal(0, depth))
        origin = camera.reshape(len(camera), *[1] * (points.ndim - 2), 3)
        return ((np.asarray(points, np.float64) - origin) @ turn.T + origin).astype(np.float32)

    def variant() -> Observation:
        joints, position = moved(seen.joints), moved(seen.object_position)
        qpos = followed(robot, np.where(valid[:, None, None], joints, 0), valid, home, fit)
        return seen.replace(joints=joints, object_position=position, qpos=qpos)

    return [variant() for _ in range(count)]


def nearest(valid: Bool[np.ndarray, " t"]) -> Int[np.ndarray, " t"]:
    """The index of the valid frame nearest to each."""
    there = np.flatnonzero(valid)
    return there[np.abs(np.arange(len(valid))[:, None] - there[None]).argmin(1)]


def first_fit(robot: Robot, joints: Float[np.ndarray, "t 21 3"], valid: Bool[np.ndarray, " t"]) -> HandFit:
    """How the hand lies in the robot's, by the first `FIT_FRAMES` frames that have one."""
    return fit_hand(robot, joints[np.flatnonzero(valid)[:FIT_FRAMES]], 1.0)


def followed(
    robot: Robot,
    joints: Float[np.ndarray, "t 21 3"],
    valid: Bool[np.ndarray, " t"],
    q: Float[np.ndarray, " 22"],
    fit: HandFit | None = None,
) -> Float[np.ndarray, "t 22"]:
    """Retargeting frame by frame (`amt.robot.streaming`) from where the robot stands; base frame, radians.

    How the hand lies in the robot's is that of `first_fit`, unless it is given.
    """
    fit = jax.tree.map(jnp.asarray, fit or first_fit(robot, joints, valid))
    rate = np.asarray(robot.max_velocity / 30.0, np.float32)
    args = (joints[np.flatnonzero(valid)[0]], joints, valid, fit, np.asarray(q, np.float32), rate)
    return np.asarray(_followed(robot, *args))


@functools.partial(jax.jit, static_argnames="robot")
def _followed(robot: Robot, first, joints, valid, fit: HandFit, q, rate) -> Float[Array, "t 22"]:
    stream = start(robot, first, fit, q)

    def one(stream, frame):
        return step(robot, stream, frame[0], fit, rate, frame[1])

    return jax.lax.scan(one, stream, (joints, valid))[1]
