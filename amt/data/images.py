"""Pixels on the host: decoding, warping, and the jitters of the embedded weights' training."""

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8

from amt.errors import UserError


def decode(color: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """A JPEG to RGB. Raises: UserError."""
    try:
        return simplejpeg.decode_jpeg(color, "RGB", fastdct=True, fastupsample=True)
    except ValueError as error:
        raise _unreadable(error) from error


def read_size(color: bytes) -> tuple[int, int]:
    """Width and height of a JPEG in pixels, from its header. Raises: UserError."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(color)
    except ValueError as error:
        raise _unreadable(error) from error
    return width, height


def _unreadable(error: ValueError) -> UserError:
    return UserError(f"a colour image of the data set is not a readable JPEG: {error}")


def warp(image: UInt8[np.ndarray, "h w 3"], H: Float[np.ndarray, "3 3"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The image through the homography H (old pixels to new ones). A much smaller result is averaged down first."""
    image, to_image = _halved(image, _pixels_per_new_pixel(H, size))
    return cv2.warpPerspective(image, H @ to_image, (size, size), flags=cv2.INTER_LINEAR)


def warp_affine(
    image: UInt8[np.ndarray, "h w 3"], H: Float[np.ndarray, "3 3"], size: int, border: int = cv2.BORDER_CONSTANT
) -> UInt8[np.ndarray, "s s 3"]:
    """As `warp` for an H whose last row is (0, 0, 1), with one of OpenCV's borders."""
    image, to_image = _halved(image, 1 / max(np.sqrt(abs(np.linalg.det(H[:2, :2]))), 1e-6))
    return cv2.warpAffine(image, (H @ to_image)[:2], (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


def _halved(image, shrink: float):
    """Halved while `shrink` is at least 2, and the map from the result's pixels to the image's.

    Means of 2 x 2 pixels are several times faster in OpenCV than those of larger blocks.
    """
    scale = 1
    while shrink >= 2 * scale and min(image.shape[:2]) >= 2:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        scale *= 2
    middle = (scale - 1) / 2
    return image, np.array([[scale, 0, middle], [0, scale, middle], [0, 0, 1]])


def _pixels_per_new_pixel(H, size: int) -> float:
    """How many old pixels lie side by side in one at the middle of the result."""
    middle = (size - 1) / 2
    a, b = np.linalg.solve(H, np.array([[middle, middle + 1], [middle, middle], [1, 1]])).T
    return float(np.hypot(*(b[:2] / b[2] - a[:2] / a[2])))


def fit_frame(width: int, height: int, size: int) -> Float[np.ndarray, "3 3"]:
    """The similarity that fits a whole image, centred, into a square of `size` pixels: image to square."""
    scale = size / max(width, height)
    shift = (size - scale * np.array([width, height])) / 2 + 0.5 * scale - 0.5
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])


def shrink_frame(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The whole image in a square, bars where it does not reach."""
    h, w = image.shape[:2]
    return warp_affine(image, fit_frame(w, h, size), size)


def occlude(image: UInt8[np.ndarray, "s s 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """Now and then one or two flat patches before the hand."""
    if rng.random() >= 0.2:
        return image
    image = image.copy()
    for _ in range(int(rng.integers(1, 3))):
        h, w = (rng.uniform(0.08, 0.32, 2) * len(image)).astype(int)
        y, x = rng.integers(0, len(image) - h), rng.integers(0, len(image) - w)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return image


_NOISE = np.random.default_rng(3).normal(0, 1, (8, 256, 256, 3)).astype(np.float32)


def color_jitter(image, rng: np.random.Generator, strength: float) -> UInt8[np.ndarray, "s s 3"]:
    """Gain, tint, offset, sometimes grey, blur and sensor noise."""
    gain = (1 + rng.uniform(-1.3, 1.3) * strength) * (1 + rng.uniform(-0.5, 0.5, 3) * strength)
    offset = rng.uniform(-70, 70) * strength + rng.normal(0, 20, 3) * strength
    levels = np.arange(256)[:, None]
    table = np.clip((levels - 128) * gain + 128 + offset, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table[None])
    if rng.random() < 0.1:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.4))
    if rng.random() < 0.5:
        s = len(image)
        y, x = rng.integers(0, 256 - s + 1, 2) if s <= 256 else (0, 0)
        field = _NOISE[rng.integers(8)]
        field = field[y : y + s, x : x + s] if s <= 256 else cv2.resize(field, (s, s))
        image = cv2.add(image, field * np.float32(rng.uniform(0, 30 * strength)), dtype=cv2.CV_8U)
    return image
