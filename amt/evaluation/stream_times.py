"""How fast a policy answers a camera: from a frame to the robot's next commands."""

import time

import jax
import numpy as np
from jaxtyping import Float, UInt8

from amt.inference.predictor import Predictor
from amt.inference.streaming import PolicyStream
from amt.models.policy import Policy
from amt.structs import Camera, Trajectory

WARM_FRAMES = 12  # that compile, the hand's fit in the robot's among them


def stream_seconds(
    predictor: Predictor,
    policy: Policy,
    images: UInt8[np.ndarray, "t h w 3"],
    camera: Camera,
    trajectory: Trajectory,
    is_left: bool,
    repeats: int,
) -> Float[np.ndarray, "repeats t"]:
    """Seconds from each frame to its 22 x n commands on the host, in `repeats` runs over the video, each a new stream.

    The robot stands where `trajectory` begins. Where the predictor's weights have no policy its parameters are drawn:
    that is no slower or faster.
    """
    base, q = np.asarray(trajectory.T_base_world), np.asarray(trajectory.qpos[0])

    def stream() -> PolicyStream:
        return PolicyStream(predictor, policy, camera, base, q, is_left)

    if "policy" not in predictor.params:
        predictor.params = predictor.params | {"policy": _drawn(stream(), images[0])}
    warm = stream()
    for image in images[:WARM_FRAMES]:
        warm(image)
    return np.array([[_seconds(one, image) for image in images] for one in (stream() for _ in range(repeats))])


def _drawn(stream: PolicyStream, image: np.ndarray) -> dict:
    seen, _ = stream.look(image)
    return jax.jit(stream.policy.init)(jax.random.key(0), seen)["params"]


def _seconds(stream: PolicyStream, image: np.ndarray) -> float:
    start = time.perf_counter()
    stream(image)
    return time.perf_counter() - start
