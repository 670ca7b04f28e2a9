"""Images are told by their content, come out upright and whole, and none of a folder vanishes without a word."""

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from amt.errors import UserError
from amt.inference.image_files import _is_harmless, read_image
from amt.inference.video import open_clip, read_frames, write_video

ROOT = Path(__file__).parents[2]


def picture(height=48, width=64):
    """Smooth, and different in all corners."""
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x, 3 * y, x + y], -1).astype(np.uint8)


def noise(height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def encoded(image, kind, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def heif(image, **options):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    return encoded(image, "HEIF", quality=95, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "JPEG2000", "AVIF", "GIF", "PPM"])
@pytest.mark.parametrize("name", ["frame", "frame.mp4", "frame.jpg", "frame.jfif"])
def test_what_is_in_a_file_decides_and_not_its_name(tmp_path, kind, name):
    (tmp_path / name).write_bytes(encoded(picture(), kind))
    clip = read_frames(tmp_path / name)
    assert clip.frames.shape == (1, 48, 64, 3)
    expected = Image.open(tmp_path / name).convert("RGB")
    assert np.abs(clip.frames[0].astype(int) - np.asarray(expected)).max() <= 1


def test_a_heic_is_read(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(heif(picture()))
    frame = read_frames(tmp_path / "IMG_1.HEIC").frames[0]
    assert np.abs(frame.astype(int) - picture()).mean() < 3


def test_a_heic_without_the_extra_is_one_line(tmp_path, monkeypatch):
    box = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    (tmp_path / "a.heic").write_bytes(box + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(encoded(picture(), "JPEG"))
    for path in (tmp_path / "a.heic", tmp_path):  # of a folder before any frame is read
        with pytest.raises(UserError, match=r"a\.heic: .*pip install -e '\.\[heif\]'"):
            open_clip(path)


@pytest.mark.parametrize("name", ["clip.jpg", "clip.png", "clip"])
def test_a_video_under_an_images_name_is_a_video(tmp_path, name):
    write_video(tmp_path / "clip.mp4", np.stack([picture()] * 5), 25)
    (tmp_path / "clip.mp4").rename(tmp_path / name)
    source = open_clip(tmp_path / name)
    assert (source.kind, source.expected_frames) == ("video", 5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_applied(tmp_path, kind, orientation):
    """Against Pillow's transposition, which goes by the same tag; HEIF's own reader turns the pixels itself."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    data = heif(picture(), exif=exif.tobytes()) if kind == "HEIF" else encoded(picture(), kind, exif=exif, **options)
    (tmp_path / "a").write_bytes(data)
    turned = Image.fromarray(picture())
    turned.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned))
    found = read_frames(tmp_path / "a").frames[0]
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).mean() < 4


def test_a_jpeg_is_what_opencv_makes_of_it(tmp_path):
    """Predictions do not change with the decoder."""
    (tmp_path / "a.jpg").write_bytes(encoded(noise(), "JPEG", quality=80))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1])


def test_a_turned_tiff_leaves_stderr_empty(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.tiff").write_bytes(encoded(picture(), "TIFF", exif=exif))
    (tmp_path / "cut.tiff").write_bytes(encoded(noise(), "TIFF", compression="tiff_lzw")[:4000] + bytes(10000))
    code = (
        "import sys; from amt.inference.video import read_frames; from amt.errors import UserError\n"
        "print(read_frames(sys.argv[1]).frames.shape)\n"
        "try: read_frames(sys.argv[2])\n"
        "except UserError as error: print(error)"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.tiff", tmp_path / "cut.tiff"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "" and done.stdout.startswith("(1, 64, 48, 3)") and "cut.tiff" in done.stdout


def test_grey_cmyk_palette_and_16_bit_colours_become_rgb(tmp_path):
    image = Image.fromarray(picture())
    for mode, kind in (("L", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("1", "PNG"), ("CMYK", "JPEG")):
        image.convert(mode).save(tmp_path / "a", kind)
        expected = np.asarray(Image.open(tmp_path / "a").convert("RGB"), int)
        assert np.abs(read_image(tmp_path / "a") - expected).max() <= (kind == "JPEG")  # CMYK is rounded otherwise
    cv2.imwrite(str(tmp_path / "a.png"), picture()[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture())


DURATIONS = [40, 80, 40, 120, 40, 200]  # milliseconds


def animation(path, kind, count=6, **options):
    frames = [Image.fromarray(np.roll(picture(), 9 * i, 1)) for i in range(count)]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=DURATIONS[:count], **options)
    return path


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "AVIF", "GIF"])
def test_all_frames_of_an_animation_come_with_their_times(tmp_path, kind):
    path = animation(tmp_path / "a.webp", kind)
    source, clip = open_clip(path), read_frames(path)
    assert source.expected_frames == len(clip.frames) == 6
    np.testing.assert_allclose(clip.time, np.cumsum([0, *DURATIONS[:-1]]) / 1000, atol=1e-6)
    image = Image.open(path)
    for index, frame in enumerate(clip.frames):
        image.seek(index)
        np.testing.assert_array_equal(frame, image.convert("RGB"))
    assert len(read_frames(path, stride=2, max_frames=2).frames) == 2


def test_an_animated_png_may_have_an_image_beside_its_frames(tmp_path):
    first = Image.fromarray(np.zeros((48, 64, 3), np.uint8))
    frames = [Image.fromarray(np.full((48, 64, 3), value, np.uint8)) for value in (50, 100, 150)]
    first.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True, duration=40)
    assert read_frames(tmp_path / "a.png").frames.mean((1, 2, 3)).tolist() == [50, 100, 150]


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_an_animation_of_one_frame_is_an_image(tmp_path, kind):
    assert open_clip(animation(tmp_path / "a", kind, 1)).kind == "image"


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "AVIF", "GIF"])
def test_a_damaged_animation_is_one_line(tmp_path, kind):
    data = animation(tmp_path / "a", kind).read_bytes()
    (tmp_path / "a").write_bytes(data[: int(0.6 * len(data))])
    with pytest.raises(UserError, match="damaged or was cut off"):
        read_frames(tmp_path / "a")


@pytest.mark.parametrize("name", ["clip.mp4", "frame.jpg", "frames/frame.png"])
def test_a_pointer_of_git_lfs_says_how_to_get_the_file(tmp_path, name):
    (tmp_path / "frames").mkdir()
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 12345\n")
    with pytest.raises(UserError, match=r"a Git LFS pointer, not the file: run `git lfs pull`"):
        open_clip(tmp_path / "frames" if "/" in name else tmp_path / name)


def test_frames_without_a_duration_take_what_players_give_them(tmp_path):
    frames = [Image.fromarray(noise(seed=i)) for i in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=0)
    np.testing.assert_allclose(read_frames(tmp_path / "a.webp").time, [0, 0.1, 0.2])


def test_pages_of_a_tiff_are_not_taken_for_one(tmp_path):
    pages = [Image.fromarray(noise(seed=i)) for i in range(3)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match="holds 3 images"):
        read_frames(tmp_path / "a.tiff")


KINDS = [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {}), ("WEBP", {}), ("TIFF", {})]
KINDS += [("TIFF", {"compression": "tiff_lzw"}), ("JPEG2000", {}), ("AVIF", {}), ("GIF", {})]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("kept", [0.5, 0.95])
@pytest.mark.parametrize("in_folder", [False, True])
def test_images_that_were_cut_off_are_refused_by_name(tmp_path, kind, options, kept, in_folder):
    data = encoded(noise(), kind, **options)
    (tmp_path / "a.png").write_bytes(encoded(noise(), "PNG"))
    path = tmp_path / "b.jpg"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(UserError, match=r"b\.jpg: not a readable image") as error:
        read_frames(tmp_path if in_folder else path)
    assert "\n" not in str(error.value)


def test_garbage_inside_a_jpeg_is_noticed(tmp_path):
    data = bytearray(encoded(noise(480, 640), "JPEG", quality=90))
    data[len(data) // 2 : len(data) // 2 + 4000] = noise(1, 4000)[0, :, 0].tobytes()
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.jpg: not a readable image"):
        read_frames(tmp_path / "a.jpg")


def photos():
    """The ways in which cameras and programs write JPEGs: by Pillow (libjpeg-turbo), OpenCV and FFmpeg."""
    image = noise(61, 83)
    for subsampling in (0, 1, 2):
        for options in ({}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}):
            yield encoded(image, "JPEG", subsampling=subsampling, **options)
    yield encoded(image, "JPEG", exif=b"Exif\0\0broken", quality=30)
    for flag in (cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_RST_INTERVAL):
        yield cv2.imencode(".jpg", image, [flag, 1])[1].tobytes()
    yield encoded(image, "MPO", save_all=True, append_images=[Image.fromarray(image)])  # two lenses, or a depth map
    plain = encoded(image, "JPEG")
    yield plain + b"\0" * 100  # a webcam's buffer is longer than its picture
    yield plain[:-2] + b"\0" * 24 + plain[-2:]  # and filled before the end marker
    yield plain[:-2] + b"\xff" * 24 + plain[-2:]
    yield plain + b"trailing" * 10
    yield plain[:-2]  # some network cameras write no end marker
    start = plain.index(b"\xff\xda")
    size = struct.unpack(">H", plain[start + 2 : start + 4])[0]
    scan = start + 2 + size - 3  # spectral selection, which means nothing in a baseline JPEG: some phones leave 0
    yield plain[:scan] + b"\0\0\0" + plain[scan + 3 :]


def test_undamaged_photos_are_not_refused(tmp_path):
    for index, data in enumerate(photos()):
        path = tmp_path / f"{index}.jpg"
        path.write_bytes(data)
        np.testing.assert_array_equal(read_image(path), cv2.imread(str(path))[..., ::-1], err_msg=str(index))


def test_only_zeros_before_the_end_marker_are_harmless():
    reason = "Corrupt JPEG data: 3 extraneous bytes before marker 0xd9"
    assert _is_harmless(reason, b"picture\0\0\0\xff\xd9") and not _is_harmless(reason, b"picture\0\1\0\xff\xd9")


# --- folders


def frames_in(folder, count=3):
    for i in range(count):
        (folder / f"color_{i:06d}.jpg").write_bytes(encoded(np.full((48, 64, 3), 50 * i, np.uint8), "JPEG"))
    return folder


def test_depth_beside_colour_is_left_out_and_said(tmp_path):
    frames_in(tmp_path)
    depth = np.full((48, 64), 700, np.uint16)
    cv2.imwrite(str(tmp_path / "aligned_depth_to_color_000000.png"), depth)
    cv2.imwrite(str(tmp_path / "d_1.png"), depth)
    cv2.imwrite(str(tmp_path / "d_2.tiff"), depth)
    cv2.imwrite(str(tmp_path / "d_3.tiff"), depth.astype(np.float32))
    source, clip = open_clip(tmp_path), read_frames(tmp_path)
    assert clip.frames.mean((1, 2, 3)).round().tolist() == [0, 50, 100]
    assert len(source.notes) == 1 and "4 depth images (aligned_depth_to_color_000000.png, ...)" in source.notes[0]


def test_depth_alone_is_one_line(tmp_path):
    cv2.imwrite(str(tmp_path / "d.png"), np.full((48, 64), 700, np.uint16))
    for path in (tmp_path, tmp_path / "d.png"):
        with pytest.raises(UserError, match=r"depth.*colour"):
            open_clip(path)


def test_no_frame_of_a_mixed_folder_vanishes(tmp_path):
    levels = [20, 60, 100, 140, 180]
    kinds = ["JPEG", "PNG", "WEBP", "AVIF", "JPEG2000"]
    for i, (level, kind) in enumerate(zip(levels, kinds, strict=True)):
        (tmp_path / f"f_{i}").write_bytes(encoded(np.full((48, 64, 3), level, np.uint8), kind))
    (tmp_path / "f_9.HEIC").write_bytes(heif(np.full((48, 64, 3), 220, np.uint8)))
    clip = read_frames(tmp_path)
    np.testing.assert_allclose(clip.frames.mean((1, 2, 3)), [*levels, 220], atol=2)


def test_what_is_no_frame_is_passed_over_and_pictures_and_videos_are_counted(tmp_path):
    frames_in(tmp_path)
    for name in ("notes.txt", "labels.json", ".DS_Store", "._color_000000.jpg", ".hidden.png", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"\0\1\2 not a picture")
    (tmp_path / "cars.txt").write_text("BMW, GIF8 and P6 cars")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub.old").mkdir()
    (tmp_path / "gone.txt").symlink_to("nowhere")
    assert open_clip(tmp_path).notes == ()
    write_video(tmp_path / "take.mov.mp4", np.stack([noise()] * 3), 25)
    (tmp_path / "IMG_1.MOV").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    (tmp_path / "IMG_1.DNG").write_bytes(b"II*\0 a raw photo")
    animation(tmp_path / "preview.gif", "GIF")
    source = open_clip(tmp_path)
    assert source.expected_frames == 3
    for words in ("2 videos", "1 raw", "1 animation (preview.gif)"):
        assert words in source.notes[0]


def dead_link(path):
    path.symlink_to("gone.jpg")


def looping_link(path):
    path.symlink_to(path.name)


def a_folder(path):
    path.mkdir()


def an_empty_file(path):
    path.touch()


def a_text(path):
    path.write_text("not a picture")


def a_pipe(path):
    os.mkfifo(path)


def a_video(path):
    write_video(path.with_suffix(".mp4"), np.stack([noise()] * 3), 25)
    path.with_suffix(".mp4").rename(path)


def cannot_be_read(path):
    """For root, too: a process's memory opens, but its first page does not read."""
    path.symlink_to("/proc/self/mem")


@pytest.mark.parametrize("make", [dead_link, looping_link, a_folder, an_empty_file, a_text, a_pipe, cannot_be_read])
def test_a_frame_that_cannot_be_read_is_one_line(tmp_path, make):
    frames_in(tmp_path)
    make(tmp_path / "color_000001b.jpg")
    with pytest.raises(UserError, match=r"color_000001b\.jpg: ") as error:
        open_clip(tmp_path)
    assert "\n" not in str(error.value)
    if make is not a_folder:
        with pytest.raises(UserError, match=r"color_000001b\.jpg: "):
            open_clip(tmp_path / "color_000001b.jpg")


def test_a_video_among_frames_under_an_images_name_is_one_line(tmp_path):
    a_video(frames_in(tmp_path) / "color_000001b.jpg")
    with pytest.raises(UserError, match=r"color_000001b\.jpg: a video"):
        open_clip(tmp_path)


def test_a_folder_of_videos_says_so(tmp_path):
    write_video(tmp_path / "a.mp4", np.stack([noise()] * 3), 25)
    with pytest.raises(UserError, match=r"no images.*1 video \(a\.mp4\); give one of the videos"):
        open_clip(tmp_path)
