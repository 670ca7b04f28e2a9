"""Clips in and out, and every damaged input with its one clear error."""

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from amt.errors import UserError
from amt.inference.video import DEFAULT_FPS, VideoWriter, open_clip, read_frames, write_video


def grey_ramp(count, height=48, width=64):
    """Frame i has the grey level 6 i: after any codec the order can be read off."""
    return np.stack([np.full((height, width, 3), 6 * i, np.uint8) for i in range(count)])


def levels(frames):
    return np.round(frames.mean((1, 2, 3)) / 6).astype(int).tolist()


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "ramp.mp4"
    write_video(path, grey_ramp(30), 25)
    return path


def test_round_trip_keeps_frames_times_and_name(video):
    clip = read_frames(video)
    assert clip.frames.shape == (30, 48, 64, 3) and clip.frames.dtype == np.uint8
    assert levels(clip.frames) == list(range(30))
    np.testing.assert_allclose(clip.time, np.arange(30) / 25, atol=1e-6)
    assert (clip.fps, clip.name) == (25.0, "ramp")


def test_colours_are_rgb(tmp_path):
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    frames[..., 0] = 220
    write_video(tmp_path / "red.mp4", frames, 30)
    red, green, blue = read_frames(tmp_path / "red.mp4").frames.mean((0, 1, 2))
    assert red > 200 and green < 20 and blue < 20


def test_chunks_are_the_whole_in_order(video):
    source = open_clip(video)
    chunks = list(source.iter_chunks(7))
    assert [len(chunk.frames) for chunk in chunks] == [7, 7, 7, 7, 2]
    assert source.expected_frames == 30
    whole = read_frames(video)
    np.testing.assert_array_equal(np.concatenate([chunk.frames for chunk in chunks]), whole.frames)
    np.testing.assert_array_equal(np.concatenate([chunk.time for chunk in chunks]), whole.time)


def test_stride_and_max_frames(video):
    clip = read_frames(video, stride=4, max_frames=5)
    assert levels(clip.frames) == [0, 4, 8, 12, 16]
    assert clip.fps == 25 / 4 and open_clip(video, stride=4, max_frames=5).expected_frames == 5
    assert len(read_frames(video, stride=4).frames) == open_clip(video, stride=4).expected_frames == 8


def test_variable_frame_rate_keeps_time_stamps(tmp_path):
    times = np.array([0.0, 0.04, 0.1, 0.3, 0.34, 0.5])
    with VideoWriter(tmp_path / "vfr.mp4", 25) as writer:
        for frame, time in zip(grey_ramp(6), times, strict=True):
            writer.write(frame, time)
    np.testing.assert_allclose(read_frames(tmp_path / "vfr.mp4").time, times, atol=1e-4)


def set_matrix(path, a, b, c, d):
    """Writes a display matrix into an mp4: ISO 14496-12 shows stored (x, y) at (a x + c y + e, b x + d y + f)."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 32 + 4  # version and flags, times and ids, layer to volume
    one = 1 << 16
    assert struct.unpack(">9i", data[start : start + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    numbers = [round(x * one) for x in (a, b, 0, c, d, 0, 0, 0)]
    data[start : start + 36] = struct.pack(">9i", *numbers, 1 << 30)
    path.write_bytes(data)


def shown(frame, a, b, c, d):
    """Every pixel at the place that the matrix gives it."""
    y, x = np.indices(frame.shape[:2])
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    image = np.zeros((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    image[to_y, to_x] = frame
    return image


ORIENTATIONS = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)]
ORIENTATIONS += [(0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0)]


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_turned_and_mirrored_videos_are_seen_as_players_show_them(tmp_path, matrix):
    path = tmp_path / "turned.mp4"
    write_video(path, noise(3, 48, 64), 25)
    stored = read_frames(path).frames
    set_matrix(path, *matrix)
    source, clip = open_clip(path), read_frames(path)
    np.testing.assert_array_equal(clip.frames, [shown(frame, *matrix) for frame in stored])
    assert (source.height, source.width) == clip.frames.shape[1:3]


@pytest.mark.parametrize("matrix", [(0.866, 0.5, -0.5, 0.866), (1, 0, 0.5, 1), (1, 0, 0, 0)])
def test_other_display_matrices_are_refused(video, matrix):
    set_matrix(video, *matrix)
    with pytest.raises(UserError, match="neither a quarter turn nor a mirror"):
        open_clip(video)


def wide_pixels(path, aspect):
    """A video stored in 32x48 pixels; smooth, so that ways to resample differ little."""
    y, x = np.mgrid[:48, :32]
    image = np.stack([8 * x, 5 * y, 4 * x + 2 * y], -1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def filtered(path, filter_, options):
    """All frames through one of FFmpeg's filters."""
    with av.open(str(path)) as container:
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(template=container.streams.video[0]), graph.add(filter_, options)]
        nodes += [graph.add("format", "yuv420p"), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        frames = []
        for frame in container.decode(video=0):
            graph.push(frame)
            frames.append(graph.pull().to_ndarray(format="rgb24"))
        return np.stack(frames)


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(2), 64), (Fraction(3, 4), 24)])
def test_pixels_that_are_not_square_are_resampled(tmp_path, aspect, width):
    path = tmp_path / "wide.mp4"
    wide_pixels(path, aspect)
    source, clip = open_clip(path), read_frames(path)
    assert clip.frames.shape == (3, 48, width, 3) and (source.width, source.height) == (width, 48)
    assert "32x48" in source.notes[0] and f"{width}x48" in source.notes[0] and "camera.K" in source.notes[0]
    expected = filtered(path, "scale", f"{width}:48:flags=bicubic")
    # FFmpeg's filter puts chroma to the left of its pixels. An image that is half a stored pixel off is 4 levels off.
    difference = np.abs(clip.frames.astype(int) - expected)
    assert difference.max() <= 4 and difference.mean() < 1


def test_pixels_are_stretched_before_the_turn(tmp_path):
    path = tmp_path / "wide.mp4"
    wide_pixels(path, Fraction(2))
    stored = read_frames(path).frames
    set_matrix(path, 0, 1, -1, 0)
    np.testing.assert_array_equal(read_frames(path).frames, np.rot90(stored, -1, (1, 2)))


def test_pixels_that_are_nearly_square_stay_as_they_are(tmp_path):
    wide_pixels(tmp_path / "square.mp4", Fraction(1280, 1281))
    source = open_clip(tmp_path / "square.mp4")
    assert (source.width, source.height, source.notes) == (32, 48, ())


def test_folder_is_in_natural_order_and_keeps_no_clock(tmp_path):
    for i in (10, 9, 1):
        cv2.imwrite(str(tmp_path / f"frame_{i}.png"), np.full((20, 30, 3), 6 * i, np.uint8))
    (tmp_path / "notes.txt").write_text("not a frame")
    clip = read_frames(tmp_path)
    assert levels(clip.frames) == [1, 9, 10]
    assert (clip.fps, clip.name) == (DEFAULT_FPS, tmp_path.name)
    np.testing.assert_allclose(clip.time, [0, 1 / 30, 2 / 30])


def test_single_image_is_a_clip_of_one_frame(tmp_path):
    cv2.imwrite(str(tmp_path / "hand.png"), np.dstack([np.full((20, 30), value, np.uint8) for value in (10, 20, 30)]))
    clip = read_frames(tmp_path / "hand.png")
    assert clip.frames.shape == (1, 20, 30, 3) and clip.time.tolist() == [0.0]
    assert clip.frames[0, 0, 0].tolist() == [30, 20, 10]


def test_writer_pads_odd_sizes_and_leaves_nothing_behind(tmp_path):
    write_video(tmp_path / "odd.mp4", grey_ramp(3, 33, 47), 30)
    assert read_frames(tmp_path / "odd.mp4").frames.shape == (3, 34, 48, 3)
    before = (tmp_path / "odd.mp4").read_bytes()
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "odd.mp4", 30) as writer:
        writer.write(grey_ramp(1)[0])
        raise RuntimeError("the run broke off")
    assert (tmp_path / "odd.mp4").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["odd.mp4"]


def test_written_video_plays_in_browsers(video):
    with av.open(str(video)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def missing(folder):
    return folder / "none.mp4"


def empty(folder):
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def text(folder):
    (folder / "notes.mp4").write_text("this is not a video\n" * 50)
    return folder / "notes.mp4"


def ansi_art(folder):
    """FFmpeg would take this for a film of a terminal."""
    (folder / "notes.txt").write_text("this is not a video\n" * 50)
    return folder / "notes.txt"


def sound(folder):
    with av.open(str(folder / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return folder / "sound.wav"


def no_images(folder):
    (folder / "readme.md").write_text("nothing to see")
    return folder


def one_frame(folder):
    write_video(folder / "still.mp4", grey_ramp(1), 25)
    return folder / "still.mp4"


def broken_image(folder):
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nthat is all")
    return folder / "a.png"


def two_sizes(folder):
    cv2.imwrite(str(folder / "a.png"), np.zeros((20, 30, 3), np.uint8))
    cv2.imwrite(str(folder / "b.png"), np.zeros((20, 40, 3), np.uint8))
    return folder


def noise(count, height, width):
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8)


def cut_in_the_pictures(folder):
    """The index at the front is whole, so only decoding finds out."""
    write_video(folder / "cut.mp4", noise(40, 48, 64), 25)
    data = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: int(0.7 * len(data))])
    return folder / "cut.mp4"


def cut_in_the_index(folder):
    write_video(folder / "cut.mp4", grey_ramp(30), 25)
    (folder / "cut.mp4").write_bytes((folder / "cut.mp4").read_bytes()[:400])
    return folder / "cut.mp4"


def cut_matroska(folder):
    """A container without a frame count: its length in seconds tells."""
    encode(folder / "cut.mkv", "libx264", "yuv420p", 50)
    data = (folder / "cut.mkv").read_bytes()
    (folder / "cut.mkv").write_bytes(data[: len(data) // 2])
    return folder / "cut.mkv"


def encode(path, codec, pixels, count):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for image in noise(count, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [
        ("mkv", "libx264", "yuv420p"),
        ("mov", "libx264", "yuv420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("gif", "gif", "rgb8"),
    ],
)
def test_other_containers_are_read_whole(tmp_path, suffix, codec, pixels):
    path = tmp_path / f"clip.{suffix}"
    encode(path, codec, pixels, 20)
    clip = read_frames(path)
    assert len(clip.frames) == open_clip(path).expected_frames == 20
    np.testing.assert_allclose(clip.time, np.arange(20) / 25, atol=2e-3)  # Matroska counts milliseconds


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (missing, "no such file"),
        (empty, "empty"),
        (text, "not a video"),
        (ansi_art, "not a video|holds no video"),
        (sound, "holds no video"),
        (no_images, "no images"),
        (one_frame, "one frame"),
        (broken_image, "not a readable image"),
        (two_sizes, "b.png is 40x20 pixels, the first one is 30x20"),
        (cut_in_the_pictures, r"decoding stopped after frame \d+ .*\(40 frames\).*truncated"),
        (cut_in_the_index, "cut off"),
        (cut_matroska, r"decoding stopped after frame \d+ .*expected 2\.00 s.*truncated"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, make, says):
    path = make(tmp_path)
    with pytest.raises(UserError, match=says) as error:
        read_frames(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_truncation_does_not_matter_before_it_is_reached(tmp_path):
    assert len(read_frames(cut_in_the_pictures(tmp_path), max_frames=3).frames) == 3


@pytest.mark.parametrize("options", [{"stride": 0}, {"max_frames": 0}])
def test_options_count_from_one(video, options):
    with pytest.raises(UserError, match="from 1"):
        open_clip(video, **options)
