"""Frames in, frames out: a video file, a folder of images or one image as a clip; an mp4 from frames.

A clip is opened cheaply (`open_clip`) and read either whole or chunk by chunk, so a long video never has to
fit into memory. All frames are RGB uint8 [H,W,3] as players show them (turned and mirrored by the display matrix,
of square pixels), with their own time stamps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, UInt8

from amt.errors import UserError
from amt.inference import image_files
from amt.inference.image_files import IMAGE_SUFFIXES, find_frames, identify, read_animation, read_image, reorient

DEFAULT_FPS = 30.0
"""Frame rate of a folder of images, and of a video that states none."""

SQUARE = 0.01  # pixels that are so little wider or narrower than high are square: encoders round a frame's size
MAX_PIXEL_ASPECT = 8
MAX_TURN_ERROR = 0.0175  # one degree, as in FFmpeg: of a display matrix from the nearest quarter turn
_EXPECTED = "expected mp4, mov, mkv, webm, avi or gif"
_TIME_BASE = Fraction(1, 90_000)  # the usual clock of mp4 video: exact for 24, 25, 30, 50 and 60 frames per second


@dataclass(frozen=True)
class Clip:
    """Frames in memory with their time stamps (seconds, the first is 0)."""

    frames: UInt8[np.ndarray, "T height width 3"]
    time: Float[np.ndarray, " T"]
    fps: float
    name: str


@dataclass(frozen=True)
class Source:
    """An opened, not yet decoded clip; `fps` and `expected_frames` (None: unknown) are what its header says.

    `kind` is `video`, `animation` (an image file of several frames), `folder` or `image`. `width` and `height` are
    those of the frames as they are yielded. `notes` say in words what was left out or changed.
    """

    path: Path
    kind: str
    fps: float
    width: int
    height: int
    expected_frames: int | None
    max_frames: int | None = None
    stride: int = 1
    notes: tuple[str, ...] = ()
    _files: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        return self.path.stem if self.kind != "folder" else self.path.name

    def __iter__(self) -> Iterator[tuple[float, UInt8[np.ndarray, "height width 3"]]]:
        """Yields (time in seconds, frame). Raises `UserError` where the input turns out to be damaged."""
        stop = None if self.max_frames is None else self.max_frames * self.stride
        start = None
        for index, (stamp, frame) in enumerate(islice(self._decoded(), 0, stop, self.stride)):
            if frame.shape[:2] != (self.height, self.width):
                where = self._files[index * self.stride] if self._files else f"{self.path}: the frame at {stamp:.2f} s"
                raise UserError(
                    f"{where} is {frame.shape[1]}x{frame.shape[0]} pixels, "
                    f"the first one is {self.width}x{self.height}; one camera has one size: convert the input"
                )
            start = stamp if start is None else start
            yield stamp - start, frame

    def _decoded(self) -> Iterator[tuple[float, np.ndarray]]:
        if self._files:
            return _load(self._files, self.fps * self.stride)
        return read_animation(self.path) if self.kind == "animation" else _decode(self.path)

    def iter_chunks(self, size: int) -> Iterator[Clip]:
        """Yields clips of at most `size` frames, in order; time goes on from one to the next."""
        frames = iter(self)
        while chunk := list(islice(frames, size)):
            time, images = zip(*chunk, strict=True)
            yield Clip(np.stack(images), np.array(time), self.fps, self.name)


def open_clip(path: str | Path, *, max_frames: int | None = None, stride: int = 1) -> Source:
    """Looks at a video file, a folder of images or one image, without reading it whole.

    `stride` keeps every n-th frame, `max_frames` stops after so many kept ones.
    Raises `UserError` on a missing, empty or non-video file, a folder without images, an unreadable image.
    """
    path = Path(path)
    if stride < 1 or (max_frames is not None and max_frames < 1):
        raise UserError(f"stride and max_frames count frames from 1: found {stride=}, {max_frames=}")
    try:
        there, is_folder = path.exists() or path.is_symlink(), path.is_dir()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if not there:
        raise UserError(f"{path}: no such file or folder; give a video, an image or a folder of images")
    if is_folder:
        files, notes = find_frames(path)
        return _open_images(path, "folder", files, max_frames, stride, notes)
    kind = identify(path)
    if kind == "depth":
        raise UserError(f"{path}: a depth image (one channel of 16 bits), which has no colours; give the colour image")
    if kind == "other":
        raise UserError(f"{path}: a raw or layered image; export it as JPEG or PNG")
    if kind == "animation":
        return _open_animation(path, max_frames, stride)
    if kind in ("image", "heif") or (not kind and path.suffix.lower() in IMAGE_SUFFIXES):
        return _open_images(path, "image", (path,), max_frames, stride)
    return _open_video(path, max_frames, stride)


def read_frames(path: str | Path, *, max_frames: int | None = None, stride: int = 1) -> Clip:
    """Reads a whole clip into memory. Options and errors: `open_clip`, and `UserError` on damaged frames."""
    source = open_clip(path, max_frames=max_frames, stride=stride)
    time, frames = zip(*source, strict=True)
    return Clip(np.stack(frames), np.array(time), source.fps, source.name)


def _load(files: tuple[Path, ...], fps: float) -> Iterator[tuple[float, np.ndarray]]:
    for index, file in enumerate(files):
        yield index / fps, read_image(file)


def _open_images(
    path: Path, kind: str, files: tuple[Path, ...], max_frames: int | None, stride: int, notes: tuple[str, ...] = ()
) -> Source:
    height, width = read_image(files[0]).shape[:2]
    count = _kept(len(files), max_frames, stride)
    return Source(path, kind, DEFAULT_FPS / stride, width, height, count, max_frames, stride, notes, files)


def _open_animation(path: Path, max_frames: int | None, stride: int) -> Source:
    (_, first), (second, _) = islice(read_animation(path), 2)
    height, width = first.shape[:2]
    count = _kept(image_files.count_frames(path), max_frames, stride)
    return Source(path, "animation", 1 / second / stride, width, height, count, max_frames, stride)


def _open_video(path: Path, max_frames: int | None, stride: int) -> Source:
    with _container(path) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or DEFAULT_FPS)
        count = stream.frames or round(_duration(container) * fps) or None
        _, first = next(_decode(path))
        height, width = first.shape[:2]
        aspect, stored, notes = _pixel_aspect(path, stream), f"{stream.width}x{stream.height}", ()
    if aspect != 1:
        notes = (
            f"{path}: stored in {stored} pixels that are {float(aspect):.4g} times as wide as high; taken as players "
            f"show it, {width}x{height} square pixels, which camera.K is of",
        )
    count = None if count is None else _kept(count, max_frames, stride)
    return Source(path, "video", fps / stride, width, height, count, max_frames, stride, notes)


def _kept(count: int, max_frames: int | None, stride: int) -> int:
    count = -(-count // stride)
    return min(count, max_frames or count)


def _container(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(
            f"{path}: not a video, or one that was cut off before its index was written "
            f"({path.stat().st_size} bytes, decoder: {error.strerror}); {_EXPECTED}"
        ) from error
    # FFmpeg takes any text for ANSI art (format tty) and would gladly film it.
    if container.format.name == "tty" or not container.streams.video:
        found = container.format.name
        container.close()
        raise UserError(f"{path}: holds no video (found format {found}); {_EXPECTED}")
    return container


def _duration(container: av.container.InputContainer) -> float:
    """Seconds of video that the header promises; 0 where it promises nothing."""
    stream = container.streams.video[0]
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    stated = stream.metadata.get("DURATION")  # Matroska and WebM keep it as a tag of the stream
    if stated:
        hours, minutes, seconds = stated.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / av.time_base
    return 0.0


def _pixel_aspect(path: Path, stream: av.VideoStream) -> Fraction:
    """Width over height of a stored pixel (1 where nothing, or next to nothing, is stated)."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
        raise UserError(
            f"{path}: states pixels {float(aspect):.4g} times as wide as high (sample aspect ratio); convert it"
        )
    return Fraction(1) if abs(aspect - 1) < SQUARE else aspect


def _orientation(path: Path, frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How a decoded frame is shown, for `reorient`, by its display matrix: [a b u; c d v; x y w] in 16.16 fixed point.

    Stored (x, y) is shown at (a x + c y, b x + d y), but for a shift: ISO 14496-12, 8.3.2. Raises `UserError` for a
    matrix that neither turns by quarters nor mirrors.
    """
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return False, False, False
    a, b, _, c, d, *_ = np.frombuffer(side_data, np.int32).astype(float)
    if (a, b, c, d) == (0, 0, 0, 0):  # written by some muxers: players take it for nothing
        return False, False, False
    for transpose, (to_x, off_x), (to_y, off_y) in ((False, (a, c), (d, b)), (True, (c, a), (b, d))):
        if abs(off_x) <= MAX_TURN_ERROR * abs(to_x) and abs(off_y) <= MAX_TURN_ERROR * abs(to_y) and to_x and to_y:
            return transpose, to_x < 0, to_y < 0
    raise UserError(
        f"{path}: its display matrix (a, b, c, d = {', '.join(f'{x / 65536:.3g}' for x in (a, b, c, d))}) is neither a "
        "quarter turn nor a mirror; convert it, so that the frames themselves are turned"
    )


def _decode(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """All frames of a video with their time stamps; `UserError` when it ends before its header says."""
    with _container(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        aspect = _pixel_aspect(path, stream)
        rate = float(stream.average_rate or DEFAULT_FPS)
        begin = float((stream.start_time or 0) * stream.time_base)
        promised, end, count, failure = _duration(container), 0.0, 0, ""
        try:
            for frame in container.decode(stream):
                # The stored width is stretched, before any turn: so do players.
                orientation = _orientation(path, frame)
                if aspect != 1:
                    frame = frame.reformat(width=round(frame.width * aspect), interpolation="BICUBIC")
                image = reorient(frame.to_ndarray(format="rgb24"), *orientation)
                stamp = count / rate if frame.time is None else frame.time - begin
                length = float(frame.duration * frame.time_base) if frame.duration else 1 / rate
                end, count = max(end, stamp + length), count + 1
                yield stamp, image
        except av.error.DecoderNotFoundError as error:
            raise UserError(
                f"{path}: no decoder for this video: an unusual codec, or cut off in its index; convert it to h264"
            ) from error
        except av.error.FFmpegError as error:
            failure = f" ({error.strerror})"
        if failure or promised - end > 2.5 / rate:
            expected = f"{promised:.2f} s" + (f" ({stream.frames} frames)" if stream.frames else "")
            raise UserError(
                f"{path}: decoding stopped after frame {count} at {end:.2f} s{failure}, expected {expected}: "
                "the file is truncated or damaged; copy it again or convert the part that plays"
            )
        if count == 0:
            raise UserError(f"{path}: the video holds no frame that can be decoded; copy or record it again")
        if count == 1:
            raise UserError(
                f"{path}: the video has one frame, which shows no motion; give a longer video, "
                "or that frame as an image"
            )


class VideoWriter:
    """Writes an h264 (yuv420p) mp4 frame by frame; the file appears under its name only when all went well.

    Odd sizes are padded by one repeated row or column, as yuv420p needs even ones.

        with VideoWriter(path, fps) as writer:
            writer.write(frame)
    """

    def __init__(self, path: str | Path, fps: float):
        self.path, self.fps = Path(path), fps
        self._temporary = self.path.with_name(f".{self.path.stem}.part.mp4")
        self._container = self._stream = None
        self._last = -1

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: UInt8[np.ndarray, "height width 3"], time: float | None = None) -> None:
        """Appends an RGB frame, shown from `time` (seconds) on; without it, frames follow at `fps`."""
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._container is None:
            self._container = av.open(str(self._temporary), "w", options={"movflags": "faststart"})
            self._stream = self._container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(1001))
            self._stream.width, self._stream.height = frame.shape[1], frame.shape[0]
            self._stream.pix_fmt, self._stream.time_base = "yuv420p", _TIME_BASE
            self._stream.codec_context.time_base = _TIME_BASE
            self._stream.options = {"crf": "23", "preset": "veryfast"}
        step = 1 / (self.fps * _TIME_BASE)
        pts = round(self._last + step if time is None and self._last >= 0 else (time or 0.0) / _TIME_BASE)
        video_frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._last = max(pts, self._last + 1)  # an encoder wants time to grow
        video_frame.pts, video_frame.time_base = self._last, _TIME_BASE
        self._container.mux(self._stream.encode(video_frame))

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        if self._container is None:
            return
        if kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if kind is None:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink(missing_ok=True)


def write_video(path: str | Path, frames: UInt8[np.ndarray, "T height width 3"], fps: float) -> None:
    """Writes RGB frames as an mp4, atomically; see `VideoWriter`."""
    with VideoWriter(path, fps) as writer:
        for frame in frames:
            writer.write(frame)
