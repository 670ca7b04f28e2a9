"""A policy on a camera: a frame comes in, the robot's next commands go out, and memory does not grow."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from amt.data.ycb import primitive_table
from amt.inference.grounding import Ground, next_ground
from amt.inference.observing import FIT_FRAMES, crop_frames
from amt.inference.predictor import Predictor
from amt.models.perception import Amt
from amt.models.policy import Policy, PolicyCache, observe
from amt.models.temporal import Observation
from amt.robot import fit_hand, load_robot, streaming
from amt.structs import Camera, Prediction


class Commands(NamedTuple):
    """`chunk` are the joint targets of the next control steps, radians in robot order; where not `valid` no hand was
    seen, and the robot holds. `seen` is what the policy was given, [1,1,...].
    """

    chunk: Float[np.ndarray, "n 22"]
    valid: bool
    prediction: Prediction
    seen: Observation


class PolicyStream:
    """`stream(image)` -> `Commands`, for each frame of a video in turn.

    Works as `Predictor`, `Observer` and `Policy` do on a whole video, but for how the hand lies in the robot's: that is
    found on the frames so far, up to `FIT_FRAMES` of them. `camera` is K [3,3] and T_world_camera [4,4] of a camera
    that stands still; `T_base_world` maps the world, mirrored in x = 0 if the hand is a left one, to the robot's base;
    `q` is where the robot stands.
    """

    def __init__(
        self,
        predictor: Predictor,
        policy: Policy,
        camera: Camera,
        T_base_world: Float[np.ndarray, "4 4"],
        q: Float[np.ndarray, " 22"],
        is_left: bool,
    ):
        self.predictor, self.policy, self.is_left = predictor, policy, is_left
        self.robot = load_robot()
        self.K = np.asarray(camera.K, np.float64)
        self.T_world_camera = np.asarray(camera.T_world_camera, np.float64)
        self.T_base_world = np.asarray(T_base_world, np.float64)
        self.rate = np.asarray(self.robot.max_velocity / streaming.FPS, np.float32)
        self.command = np.asarray(q, np.float32)
        self.box, self.joints, self.follower, self.fit, self.ground = None, [], None, None, Ground()
        self.cache = policy.empty_cache(1)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Commands:
        seen, prediction = self.look(image)
        valid = bool(prediction.hand.valid[0])
        if valid:
            self._follow(np.asarray(seen.joints)[0, 0])
        seen = seen.replace(qpos=self.command[None, None])
        chunk, self.cache = _decide(self.policy, self.predictor.params["policy"], seen, self.cache)
        return Commands(np.asarray(chunk), valid, prediction, seen)

    def look(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[Observation, Prediction]:
        """What is seen in the next frame, [1,1,...] and [1,...]; the robot is where it was commanded last.

        Things are as far away as what stood on the table until now says.
        """
        predictor, K = self.predictor, self.K[None]
        one, self.box = predictor.track(image, self.K, self.is_left, self.box, lambda: predictor.find(image[None]))
        crop = predictor.crops(image[None], K, predictor.boxes(one.hand.joints, K), np.array([self.is_left]))
        T = crop_frames(self.T_base_world, self.T_world_camera[None], crop.R_crop_camera, self.is_left)
        hand = (predictor.params, predictor.hand, crop.image, crop.K, T[None], self.command[None, None])
        seen = jax.device_get(_look(predictor.model, *hand, one.hand.valid[None]))
        self.ground = next_ground(self.ground, seen, 0)
        return seen.rescaled(np.full((1, 1), self.ground.scale, np.float32)), one

    def _follow(self, joints: Float[np.ndarray, "21 3"]) -> None:
        """Streamed retargeting of one more frame with a hand (base frame)."""
        if len(self.joints) < FIT_FRAMES:
            self.joints.append(joints)
            self.fit = jax.tree.map(jnp.asarray, fit_hand(self.robot, np.stack(self.joints), 1.0))
        if self.follower is None:
            self.follower = streaming.start(self.robot, joints, self.fit, self.command)
        self.follower, command = streaming.step(self.robot, self.follower, joints, self.fit, self.rate)
        self.command = np.asarray(command)


@functools.partial(jax.jit, static_argnames="model")
def _look(model: Amt, params, hand, image, K, T_base_crop, qpos, valid) -> Observation:
    out = model.apply({"params": params}, image, K, hand, method=Amt.perceive)
    half = jnp.asarray(primitive_table()[0], jnp.float32)
    return observe(out, T_base_crop, half, qpos, valid, jnp.ones(valid.shape))


@functools.partial(jax.jit, static_argnames="policy")
def _decide(policy: Policy, params, seen: Observation, cache: PolicyCache):
    actions, cache = policy.apply({"params": params}, seen, cache)
    return actions.commands[0, 0], cache
