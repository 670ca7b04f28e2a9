"""Image files as frames: what a file is by its first bytes, which files of a folder are frames, and their pixels.

All frames are RGB uint8 [H,W,3], upright: the orientation that a file states (EXIF, HEIF) is applied.
"""

import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageOps

from amt.errors import UserError
from amt.storage import POINTER_HINT, is_pointer

# Names of frames. What is in a file decides; these say what may not vanish from a folder.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".j2k", ".heic", ".heif",
    ".hif", ".avif",
)  # fmt: skip
VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".gif",
)  # fmt: skip
OTHER_PICTURES = (
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".psd", ".exr", ".hdr", ".jxl",
)  # fmt: skip
DEPTH_NAME = "aligned_depth_to_color_"  # DexYCB's
HEAD = 8192  # bytes that tell what a file is: an animated PNG says so behind its colour profile

_MAGIC = {
    b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png", b"GIF87a": "gif", b"GIF89a": "gif", b"II*\0": "tiff",
    b"MM\0*": "tiff", b"\0\0\0\x0cjP  ": "jp2", b"\xff\x4f\xff\x51": "jp2", b"\x1a\x45\xdf\xa3": "video",
    b"FLV": "video", b"OggS": "video", b"\0\0\1\xba": "video", b"\x30\x26\xb2\x75": "video",
}  # fmt: skip
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

# EXIF orientation: rows and columns swapped, then mirrored left-right, then top-bottom (CIPA DC-008, 4.6.5).
_EXIF = {
    2: (False, True, False), 3: (False, True, True), 4: (False, False, True), 5: (True, False, False),
    6: (True, True, False), 7: (True, True, True), 8: (True, False, True),
}  # fmt: skip
_ORIENTATION = 0x0112
_REDUCED = 254  # TIFF's NewSubfileType: bit 0 says that a page is another's thumbnail
SHORTEST, INSTEAD = 0.0101, 0.1  # seconds: players show a frame that states 10 ms or less for so long


def reorient(image: np.ndarray, transpose: bool, flip_x: bool, flip_y: bool) -> UInt8[np.ndarray, "height width 3"]:
    """One of the eight orientations: rows and columns swapped, then mirrored left-right, then top-bottom."""
    if transpose:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def identify(path: Path) -> str:
    """What a file is by its content: `image`, `heif`, `animation`, `depth`, `video`, `other` (raw photos) or ''.

    Raises `UserError` for what cannot be read: a dead link, a folder, an empty file, no permission.
    """
    head = _read(path, HEAD)
    if path.suffix.lower() in OTHER_PICTURES:
        return "other"  # many raw photos are TIFFs whose first page is a thumbnail
    kind = _format(head)
    if path.name.startswith(DEPTH_NAME) and kind:
        return "depth"
    if kind == "png" and head[24:26] == b"\x10\0":  # 16 bits, grey
        return "depth"
    if kind == "tiff":
        with _guarded(path, kind), Image.open(path) as image:
            return "depth" if image.mode[0] in "IF" else "image"
    animated = {
        "gif": True,
        "png": b"acTL" in head.partition(b"IDAT")[0],
        "webp": head[12:16] == b"VP8X" and bool(head[20] & 2),  # the flag of its extended header
        "avif": head[8:12] == b"avis",
    }
    if animated.get(kind) and count_frames(path) > 1:
        return "animation"
    return kind if kind in ("", "video", "heif") else "image"


def find_frames(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The frames of a folder in the natural order of their names, and a note on pictures and videos left out.

    Files that are neither, hidden files and folders are passed over. Raises `UserError` for a file that is a frame by
    its name and cannot be read or is something else, and for a folder without frames.
    """
    frames, others = [], {}
    try:
        paths = sorted(folder.iterdir(), key=_natural_order)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
    for path in paths:
        if path.name.startswith("."):
            continue
        named = path.suffix.lower() in IMAGE_SUFFIXES
        try:
            kind = identify(path)
        except UserError:
            if named:
                raise
            kind = "" if path.is_dir() or path.suffix else "unreadable"
        if not kind and path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir():
            kind = "video"
        if kind == "heif":
            _register_heif(path)  # a missing extra is found here, not frames later
        if kind in ("image", "heif"):
            frames.append(path)
        elif named and kind in ("", "video"):
            raise UserError(
                f"{path}: {'a video' if kind else 'not a readable image'}, though its name says image "
                f"({path.stat().st_size} bytes); replace it or take it out of the folder"
            )
        elif kind:
            others.setdefault(kind, []).append(path.name)
    left_out = ", ".join(_count(kind, names) for kind, names in others.items())
    if not frames:
        advice = "give the folder in which the frames themselves lie"
        if others.keys() == {"depth"}:
            advice = "depth has no colours: give the folder of the colour images"
        elif {"video", "animation"} & others.keys():
            advice = "give one of the videos itself"
        raise UserError(
            f"{folder}: the folder holds no images (looked for {' '.join(IMAGE_SUFFIXES)})"
            f"{'; it holds ' if left_out else ''}{left_out}; {advice}"
        )
    notes = [f"{folder}: {len(frames)} images are the frames; left out: {left_out}"] if left_out else []
    return tuple(frames), tuple(notes)


def read_image(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Decodes a still image, upright. Raises `UserError` where it is damaged, animated or no image."""
    data = _read(path)
    kind = _format(data[:HEAD])
    if kind in ("", "video"):
        raise UserError(f"{path}: not a readable image ({len(data)} bytes); replace it or take it out of the folder")
    if kind == "jpeg":
        return _decode_jpeg(data, path)
    with _guarded(path, kind), Image.open(io.BytesIO(data)) as image:
        # A HEIC's further images are those of a burst or a depth map beside the chosen one, as a JPEG's are.
        if kind != "heif" and (pages := _pages(image, kind)) > 1:
            raise UserError(
                f"{path}: holds {pages} images, not one; export each to its own file, and give their folder"
            )
        image = ImageOps.exif_transpose(image)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def count_frames(path: Path) -> int:
    """How many frames `read_animation` yields. Raises `UserError` where it is damaged."""
    with _guarded(path), Image.open(path) as image:
        return image.n_frames - _first_frame(image)


def read_animation(path: Path) -> Iterator[tuple[float, UInt8[np.ndarray, "height width 3"]]]:
    """Yields (time in seconds, frame) of an animated WebP, PNG, GIF or AVIF. Raises `UserError` where it is damaged."""
    time, count = 0.0, count_frames(path)
    with Image.open(path) as image:
        first = _first_frame(image)
        for index in range(first, first + count):
            with _guarded(path):
                image.seek(index)
                image.load()
                frame = np.asarray(image.convert("RGB"))
            yield time, frame
            shown = float(image.info.get("duration") or 0) / 1000
            time += shown if shown > SHORTEST else INSTEAD


def _first_frame(image: Image.Image) -> int:
    """0, or 1 where an animated PNG begins with an image for programs that know no animation."""
    return int(getattr(image, "default_image", False))


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """`frame_2` comes before `frame_10`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


def _count(kind: str, names: list[str]) -> str:
    word = {"depth": "depth image", "other": "raw or layered image", "unreadable": "unreadable file"}.get(kind, kind)
    return f"{len(names)} {word}{'s' * (len(names) > 1)} ({names[0]}{', ...' * (len(names) > 1)})"


def _read(path: Path, size: int = -1) -> bytes:
    """The first `size` bytes, or all; `UserError` where there are none."""
    try:
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path}: a dead symbolic link (to {path.readlink()}); copy the file itself")
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path}: a folder, though its name says image; move it out, or give it as the input")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise UserError(f"{path}: not a file but a device, pipe or socket; copy its content into a file")
        with path.open("rb") as file:
            data = file.read(size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if not data:
        raise UserError(f"{path}: the file is empty (0 bytes); copy or record it again")
    if is_pointer(data):
        raise UserError(f"{path}: {POINTER_HINT}")
    return data


def _format(head: bytes) -> str:
    """An image format, `video`, or '' by the first bytes."""
    if head[4:8] == b"ftyp":  # ISO 14496-12: size, 'ftyp', major brand, version, compatible brands
        box = head[: int.from_bytes(head[:4], "big")]
        brands = {box[8:12]} | {box[i : i + 4] for i in range(16, len(box), 4)}
        return "avif" if brands & {b"avif", b"avis"} else "heif" if brands & _HEIF_BRANDS else "video"
    if head[4:8] in (b"moov", b"mdat", b"wide"):
        return "video"
    if head[:4] == b"RIFF":
        return {b"WEBP": "webp", b"AVI ": "video"}.get(head[8:12], "")
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # two letters alone may begin a text, too
        return "bmp"
    if re.match(rb"P[56]\s+(#|\d)", head):
        return "pnm"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def _decode_jpeg(data: bytes, path: Path) -> np.ndarray:
    """The image, upright. `UserError` on any of libjpeg's warnings of damage."""
    try:
        image = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        if not _is_harmless(str(error).strip(), data):
            raise _damaged(path, len(data), str(error)) from error
        image = simplejpeg.decode_jpeg(data, "RGB", strict=False)
    if b"Exif\0\0" not in data[: 1 << 16]:
        return image
    try:
        with _silent(), Image.open(io.BytesIO(data)) as header:
            orientation = header.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block states nothing; Pillow raises whatever it stumbled over
        orientation = 1
    return reorient(image, *_EXIF[orientation]) if orientation in _EXIF else image


def _is_harmless(reason: str, data: bytes) -> bool:
    """Whether libjpeg warned of what cameras write, and the picture is whole.

    Scan parameters that mean nothing in a baseline JPEG; zeros before the end marker; none behind the last row.
    """
    if reason.startswith("Invalid SOS parameters"):
        return True
    if match := re.fullmatch(r".*?(\d+) extraneous bytes before marker 0xd9", reason):
        end, count = data.rfind(b"\xff\xd9"), int(match[1])
        return data[end - count : end] == bytes(count)
    if reason == "Premature end of JPEG file" and b"\xff\xc2" not in data:  # progressive: later scans may be missing
        try:
            simplejpeg.decode_jpeg(data + b"\xff\xd9", "RGB")
        except ValueError:
            return False
        return True
    return False


def _pages(image: Image.Image, kind: str) -> int:
    """How many images a file holds, thumbnails not counted."""
    count = getattr(image, "n_frames", 1) - _first_frame(image)
    if kind != "tiff" or count == 1:
        return count
    full = 0
    for index in range(count):
        image.seek(index)
        full += not image.tag_v2.get(_REDUCED, 0) & 1
    image.seek(0)
    return full


@contextmanager
def _guarded(path: Path, kind: str = "") -> Iterator[None]:
    """Around Pillow: silent, and whatever its readers raise on a damaged file is a `UserError` that names it."""
    if kind == "heif":
        _register_heif(path)
    try:
        with _silent(kind):
            yield
    except UserError:
        raise
    except Exception as error:
        raise _damaged(path, path.stat().st_size, str(error) or type(error).__name__) from error


def _damaged(path: Path, size: int, reason: str) -> UserError:
    reason = re.sub(r" <_io.BytesIO.*?>", "", " ".join(reason.split()))
    return UserError(
        f"{path}: not a readable image, it is damaged or was cut off ({size} bytes, decoder: {reason}); "
        "copy it again or take it out"
    )


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(f"{path}: a HEIC image, which needs an extra: pip install -e '.[heif]'") from error
    pillow_heif.register_heif_opener()


@contextmanager
def _silent(kind: str = "") -> Iterator[None]:
    """No warnings of Pillow's, nor libtiff's errors on stderr, which Pillow raises as well."""
    with warnings.catch_warnings(action="ignore"):
        if kind != "tiff":
            yield
            return
        kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nothing)
