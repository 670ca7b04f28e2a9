"""Textures of the generated scenes: skin, objects, table, walls. Drawn; photographs are optional."""

import functools
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from amt.errors import UserError
from amt.hand import HandModel
from amt.storage import refuse_pointer

SKIN_TONES = (
    (224, 172, 140), (235, 190, 165), (198, 140, 105), (150, 100, 72),
    (105, 68, 48), (240, 205, 185), (180, 125, 95), (215, 160, 135),
)  # fmt: skip
CHART_PX = 256  # side of one of the two charts of the skin
CHART_M = 0.28  # what it covers
CHART_ORIGIN = np.array([-0.21, -0.13])  # its corner, canonical x and z in metres


@functools.cache
def load_photographs(folder: str) -> list[UInt8[np.ndarray, "h w 3"]]:
    """All images of a folder, RGB, read once; an empty name gives none.

    Raises `UserError` where the folder is missing, holds no image of at least 120 pixels a side or Git LFS pointers.
    """
    if not folder:
        return []
    if not Path(folder).is_dir():
        raise UserError(f"config.generate.photographs: {folder} is not a folder; name one that holds images, or ''")
    paths = [p for p in sorted(Path(folder).iterdir()) if p.suffix in (".png", ".jpg", ".jpeg")]
    for path in paths:
        refuse_pointer(path)
    images = [cv2.imread(str(path)) for path in paths]
    images = [np.ascontiguousarray(i[..., ::-1]) for i in images if i is not None and min(i.shape[:2]) >= 120]
    if not images:
        raise UserError(f"config.generate.photographs: no .png or .jpg of at least 120 px in {folder}")
    return images


def noise(rng: np.random.Generator, size: int) -> Float[np.ndarray, "size size 3"]:
    """Coloured noise with a random spectrum, unit standard deviation."""
    out = np.zeros((size, size, 3), np.float32)
    for scale in (2, 4, 8, 16, 32, 64):
        coarse = rng.normal(size=(size // scale + 2, size // scale + 2, 3)).astype(np.float32)
        layer = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        out += layer * np.float32(scale ** rng.uniform(0.2, 1.0) * rng.uniform(0, 1))
    if rng.random() < 0.5:
        out = out.mean(2, keepdims=True) * rng.uniform(0.5, 1, 3).astype(np.float32)
    return out / (out.std() + 1e-6)


def background(rng: np.random.Generator, size: int, photographs: list) -> UInt8[np.ndarray, "size size 3"]:
    """What lies behind everything: mostly a piece of a photograph, where there are any."""
    return texture(rng, size, photographs, 15 if photographs else 6)


def texture(rng: np.random.Generator, size: int, photographs: list, kinds: int = 0) -> UInt8[np.ndarray, "size size 3"]:
    """Plain, noisy, striped, drawn, graded, or a piece of a photograph: every one of `kinds` beyond the sixth."""
    kind = rng.integers(kinds or (9 if photographs else 6))
    base = rng.uniform(30, 255, 3)
    ramp = np.linspace(0, 1, size)
    if kind == 0:
        image = base + noise(rng, size) * rng.uniform(1, 8)
    elif kind in (1, 2):
        image = base + noise(rng, size) * rng.uniform(10, 50)
    elif kind == 3:
        wave = np.sin(ramp * rng.integers(2, 12) * 2 * np.pi + rng.uniform(0, 6))
        wave = np.sign(wave) if rng.random() < 0.5 else wave
        wave = wave[:, None] if rng.random() < 0.5 else wave[None]
        image = base + wave[..., None] * rng.uniform(20, 90, 3) + np.zeros((size, size, 3))
    elif kind == 4:
        image = _drawing(rng, size, base)
    elif kind == 5:
        angle = rng.uniform(0, 2 * np.pi)
        mix = np.cos(angle) * ramp[None] + np.sin(angle) * ramp[:, None]
        mix = ((mix - mix.min()) / np.ptp(mix))[..., None]
        image = base * (1 - mix) + rng.uniform(30, 255, 3) * mix + noise(rng, size) * rng.uniform(0, 6)
    else:
        image = _photograph(rng, size, photographs)
    return np.clip(image, 0, 255).astype(np.uint8)


def _drawing(rng, size, base):
    image = np.zeros((size, size, 3), np.uint8) + np.clip(base, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(3, 15)):
        color = rng.uniform(0, 255, 3).tolist()
        a, b = (rng.integers(0, size, 2).tolist() for _ in range(2))
        shape = rng.integers(3)
        if shape == 0:
            cv2.rectangle(image, a, b, color, -1)
        elif shape == 1:
            cv2.circle(image, a, int(rng.integers(4, size // 4)), color, -1)
        else:
            word = "".join(chr(c) for c in rng.integers(65, 91, 6))
            cv2.putText(image, word, a, 0, rng.uniform(0.6, 2.5), color, int(rng.integers(1, 5)))
    return image


def _photograph(rng, size, photographs):
    photo = photographs[rng.integers(len(photographs))]
    side = int(rng.uniform(0.25, 1) * min(photo.shape[:2]))
    y, x = rng.integers(photo.shape[0] - side + 1), rng.integers(photo.shape[1] - side + 1)
    piece = cv2.resize(photo[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA)
    piece = piece[:, ::-1] if rng.random() < 0.5 else piece
    piece = piece[..., rng.permutation(3)] if rng.random() < 0.4 else piece
    return piece.astype(np.float32) * rng.uniform(0.5, 1.3) + rng.uniform(-30, 30)


def skin_charts(
    hand: HandModel,
) -> tuple[Int[np.ndarray, " s"], Float[np.ndarray, "s 2"], Int[np.ndarray, "f 3"]]:
    """The hand cut into a dorsal and a palmar chart: vertex of each skin vertex, texture coordinate, faces.

    Charts are the template seen from above (canonical x and z), side by side in one texture.
    """
    v, faces = np.asarray(hand.v_template), np.asarray(hand.faces)
    normal = np.cross(v[faces[:, 1]] - v[faces[:, 0]], v[faces[:, 2]] - v[faces[:, 0]])
    palmar = (normal[:, 1] < 0).astype(int)
    pairs = np.stack([faces, np.repeat(palmar[:, None], 3, 1)], -1).reshape(-1, 2)
    unique, index = np.unique(pairs, axis=0, return_inverse=True)
    uv = (v[unique[:, 0]][:, [0, 2]] - CHART_ORIGIN) / CHART_M
    uv = np.stack([(uv[:, 0] + unique[:, 1]) / 2, uv[:, 1]], -1)
    return unique[:, 0], uv, index.reshape(-1, 3)


def skin_texture(rng: np.random.Generator, hand: HandModel) -> UInt8[np.ndarray, "h w 3"]:
    """Skin for `skin_charts`: tone, mottling, knuckle creases and nails on the back, lines in the palm."""
    size = CHART_PX
    tone = np.array(SKIN_TONES[rng.integers(len(SKIN_TONES))], np.float32)
    tone = tone * np.float32(rng.uniform(0.8, 1.1)) * rng.uniform(0.94, 1.06, 3).astype(np.float32)
    image = np.tile(tone, (size, 2 * size, 1))
    image[:, size:] += np.array([12, -4, -2], np.float32)
    image += np.concatenate([noise(rng, size), noise(rng, size)], 1) * np.float32(rng.uniform(1.5, 5))

    joints = np.asarray(hand(np.zeros(48, np.float32), np.zeros(10, np.float32), np.zeros(3, np.float32))[0])

    def pixel(point):
        return (np.asarray(point)[[0, 2]] - CHART_ORIGIN) / CHART_M * size

    marks = np.zeros_like(image)
    nail_color = np.clip(tone * 0.85 + np.array([45, 25, 25], np.float32), 0, 255)
    for chain in np.arange(1, 21).reshape(5, 4):
        a, b = pixel(joints[chain[2]]), pixel(joints[chain[3]])
        along = (b - a) / np.linalg.norm(b - a)
        across = np.array([-along[1], along[0]])
        for chart, strength in ((0, rng.uniform(10, 35)), (1, rng.uniform(10, 35))):
            shift = np.array([chart * size, 0])
            for k in chain[1:3]:
                for offset in (-1.5, 1.5) if chart == 0 else (0.0,):
                    p = pixel(joints[k]) + shift + along * offset
                    ends = [tuple(int(x) for x in p + s * across * 7) for s in (-1, 1)]
                    cv2.line(marks, ends[0], ends[1], (strength, strength * 1.3, strength * 1.2), 1, cv2.LINE_AA)
        nail = b - along * 5
        angle = float(np.degrees(np.arctan2(along[1], along[0])))
        axes = (int(rng.integers(4, 7)), int(rng.integers(3, 5)))
        cv2.ellipse(image, tuple(int(x) for x in nail), axes, angle, 0, 360, nail_color.tolist(), -1, cv2.LINE_AA)
    wrist, index, little = (pixel(joints[k]) for k in (0, 5, 17))
    for t in (0.45, 0.6, 0.75):
        ends = [wrist + (p - wrist) * t * rng.uniform(0.85, 1.1) + [size, 0] for p in (index, little)]
        ends = [tuple(int(x) for x in p) for p in ends]
        cv2.line(marks, ends[0], ends[1], (18, 26, 24), 1, cv2.LINE_AA)
    image -= cv2.GaussianBlur(marks, (0, 0), 0.8)
    return np.clip(image, 0, 255).astype(np.uint8)
