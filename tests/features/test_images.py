"""Pictures of all kinds, made here: what each is as RGB, and why a bad one has no content."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from recbole_ext.features.encoded import NoContent
from recbole_ext.features.images import MAX_RATIO, image_hash, open_image, read_images
from recbole_ext.types import UserError

RED, BLUE = (220, 20, 10), (10, 20, 220)


def solid(mode, value, size=(8, 8)):
    return Image.new(mode, size, value)


def palette():
    """Return a picture whose left half is red and whose right half is transparent."""
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (4, 0, 8, 8))
    return image


def grey16(value):
    return Image.fromarray(np.full((8, 8), value, np.uint16))


@pytest.mark.parametrize(
    ("image", "suffix", "more", "left", "right"),
    [
        (solid("RGB", RED), "png", {}, RED, RED),
        (solid("RGB", RED), "bmp", {}, RED, RED),
        (solid("RGB", RED), "webp", {"lossless": True}, RED, RED),
        (solid("RGB", RED), "jpg", {"quality": 95}, RED, RED),
        (solid("L", 77), "png", {}, (77,) * 3, (77,) * 3),
        (solid("L", 77), "jpg", {"quality": 95}, (77,) * 3, (77,) * 3),
        (solid("1", 1), "png", {}, (255,) * 3, (255,) * 3),
        # a fifth of black over white; all of nothing over white
        (solid("LA", (0, 51)), "png", {}, (204,) * 3, (204,) * 3),
        (solid("RGBA", (*RED, 0)), "png", {}, (255,) * 3, (255,) * 3),
        (solid("RGBA", (0, 0, 255, 51)), "webp", {"lossless": True}, (204, 204, 255), None),
        (solid("RGB", RED), "png", {"transparency": RED}, (255,) * 3, (255,) * 3),
        (palette(), "png", {}, RED, BLUE),
        (palette(), "png", {"transparency": 1}, RED, (255,) * 3),
        (palette(), "gif", {"transparency": 1}, RED, (255,) * 3),
        # cyan ink takes red away, black ink takes all
        (solid("CMYK", (255, 0, 0, 0)), "jpg", {"quality": 95}, (0, 255, 255), None),
        (solid("CMYK", (0, 0, 0, 255)), "jpg", {"quality": 95}, (0, 0, 0), None),
        (grey16(257 * 100), "png", {}, (100,) * 3, (100,) * 3),
        (grey16(256 * 200), "png", {}, (199,) * 3, (199,) * 3),  # 51200 / 65535 * 255 = 199.2
        (grey16(65535), "png", {}, (255,) * 3, (255,) * 3),
    ],
)
def test_every_mode_is_seen_as_it_looks(image, suffix, more, left, right, tmp_path):
    path = tmp_path / f"x.{suffix}"
    image.save(path, **more)
    found = open_image(path)
    assert found.mode == "RGB" and found.size == (8, 8)
    within = 6 if suffix == "jpg" else 0
    assert np.abs(np.subtract(found.getpixel((1, 4)), left)).max() <= within
    assert np.abs(np.subtract(found.getpixel((6, 4)), right or left)).max() <= within


@pytest.mark.parametrize(
    ("orientation", "size", "first"),
    [(1, (16, 8), RED), (3, (16, 8), BLUE), (6, (8, 16), RED), (8, (8, 16), BLUE)],
)
def test_a_turned_picture_is_upright(orientation, size, first, tmp_path):
    image = solid("RGB", RED, (16, 8))
    image.paste(BLUE, (8, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation  # 3: upside down; 6 and 8: the camera was on its side
    image.save(tmp_path / "x.png", exif=exif)
    found = open_image(tmp_path / "x.png")
    assert found.size == size
    assert found.getpixel((1, 1)) == first  # of red and blue, the one that is left or on top


def test_of_an_animation_the_first_frame_is_shown(tmp_path):
    frames = [solid("RGB", BLUE), solid("RGB", RED)]
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"x.{suffix}"
        more = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **more)
        with Image.open(path) as image:
            assert image.n_frames == 2
        assert np.abs(np.subtract(open_image(path).getpixel((4, 4)), BLUE)).max() <= 1, suffix


def jpeg() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def png(width: int, height: int) -> bytes:
    """Return a PNG whose header promises a size, with hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def tiff() -> bytes:
    stream = io.BytesIO()
    solid("RGB", RED).save(stream, "TIFF")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (jpeg()[: len(jpeg()) // 2], "truncated"),
        (png(8, 800), "a strip of 8 x 800 pixels"),
        (png(800, 800), "truncated"),
        (png(8, 8)[:20], "x.jpg: "),
        (b"<html>404</html>", "no picture that can be read .JPEG, PNG, WEBP, GIF, BMP"),
        (b"", "no picture that can be read"),
        (tiff(), "no picture that can be read"),
    ],
)
def test_a_bad_file_has_no_content_and_says_why(data, reason, tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(NoContent, match=reason) as said:
        open_image(path)
    assert str(path) in str(said.value)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp", "gif", "bmp"])
def test_damage_of_any_kind_is_a_picture_or_no_content(suffix, tmp_path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(tmp_path / f"x.{suffix}", exif=exif)
    whole = (tmp_path / f"x.{suffix}").read_bytes()
    n_refused = 0
    for _ in range(150):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1) if rng.random() < 0.3 else None])
        for place in rng.integers(0, min(len(data), rng.choice([50, 10**6])), 3):
            data[place] = rng.integers(256)
        (tmp_path / "x").write_bytes(data)
        try:
            assert open_image(tmp_path / "x").mode == "RGB"
        except NoContent as error:
            assert "\n" not in str(error)
            n_refused += 1
    assert n_refused > 20


def test_a_file_that_is_not_there_has_no_content(tmp_path):
    with pytest.raises(NoContent, match=r"x\.jpg: no such file"):
        open_image(tmp_path / "x.jpg")
    with pytest.raises(NoContent, match="is a directory"):
        open_image(tmp_path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(8193, 8193), (12000, 12000), (60000, 60000)])
def test_a_bomb_is_refused_before_it_is_decoded(size, tmp_path, monkeypatch):
    def decode(self):
        raise AssertionError("it was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    (tmp_path / "x.png").write_bytes(png(*size))
    with pytest.raises(NoContent, match="67108864"):
        open_image(tmp_path / "x.png")


def test_limits_are_included(tmp_path):
    solid("RGB", RED, (8, 8)).save(tmp_path / "x.png")
    assert open_image(tmp_path / "x.png", max_pixels=64).size == (8, 8)
    with pytest.raises(NoContent, match="8 x 8 pixels are more than the 63 allowed"):
        open_image(tmp_path / "x.png", max_pixels=63)
    solid("RGB", RED, (2 * MAX_RATIO, 2)).save(tmp_path / "x.png")
    assert open_image(tmp_path / "x.png").size == (2 * MAX_RATIO, 2)
    solid("RGB", RED, (2, 2 * MAX_RATIO + 1)).save(tmp_path / "x.png")
    with pytest.raises(NoContent, match="a strip of 2 x 129 pixels"):
        open_image(tmp_path / "x.png")


def test_a_folder_has_a_picture_for_each_name(tmp_path):
    for name in ("b.JPG", "a.1.png", "c.webp", "notes.txt", "._b.jpg", "d"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    found = read_images(tmp_path)
    assert found == {
        "a.1": (tmp_path / "a.1.png",),
        "b": (tmp_path / "b.JPG",),
        "c": (tmp_path / "c.webp",),
    }
    (tmp_path / "b.png").touch()
    with pytest.raises(UserError, match=r"two pictures of 'b', b\.JPG and b\.png"):
        read_images(tmp_path)
    with pytest.raises(UserError, match=r"has no file that ends in \.jpg"):
        read_images(tmp_path / "sub")


def test_a_csv_has_pictures_in_order_beside_itself(tmp_path):
    text = 'item_id,file\n7,a/2.jpg\n"x,y",../b.png\n7,a/1.jpg\n8,\n\n9,/abs/c.png\n'
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    found = read_images(tmp_path / "p.csv")
    assert list(found) == ["7", "x,y", "8", "9"]
    assert found["7"] == (tmp_path / "a" / "2.jpg", tmp_path / "a" / "1.jpg")
    assert found["x,y"] == (tmp_path / ".." / "b.png",) and found["8"] is None
    assert str(found["9"][0]) == "/abs/c.png"
    (tmp_path / "p.csv").write_text("item_id,title,file\n7,A,a.jpg\n")
    assert read_images(tmp_path / "p.csv") == {"7": (tmp_path / "a.jpg",)}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("item_id\n7\n", "the first line must name two columns"),
        ("", "the first line must name two columns"),
        ("item_id,file\n", "has no row below its first line"),
        ("item_id,title,files\n7,A,a.jpg\n", "which of the columns title, files is the file.*did"),
        ("item_id,file\n7,a.jpg\n8,b.jpg,c.jpg\n", "line 3: 3 columns where the first line has 2"),
        ("item_id,file\n7,a.jpg\n7,a.jpg\n", r"line 3: '7' has the file a\.jpg already"),
        (b"item_id,file\n7,\xff.jpg\n", "cannot read .*p.csv"),
    ],
)
def test_a_csv_that_is_none_is_refused(text, sentence, tmp_path):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "p.csv").write_bytes(data)
    with pytest.raises(UserError, match=sentence):
        read_images(tmp_path / "p.csv")


def test_a_source_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no folder or file .*nothing"):
        read_images(tmp_path / "nothing")
    (tmp_path / "p.txt").touch()
    with pytest.raises(UserError, match="is no folder of pictures and no .csv"):
        read_images(tmp_path / "p.txt")


def test_the_hash_is_of_what_is_in_the_files(tmp_path):
    one, two, again = (tmp_path / name for name in ("1.jpg", "2.jpg", "3.png"))
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    again.write_bytes(b"one")
    gone = tmp_path / "gone.jpg"
    assert image_hash((one,)) == image_hash((again,))
    different = [(one,), (two,), (one, two), (two, one), (one, gone), (gone, one), (one, one)]
    assert len({image_hash(paths) for paths in different}) == len(different)
    before = image_hash((one, gone))
    gone.write_bytes(b"two")
    assert image_hash((one, gone)) == image_hash((one, two)) != before
    gone.unlink()
    for paths in ((gone,), (gone, gone)):
        with pytest.raises(NoContent, match=r"gone\.jpg: no such file"):
            image_hash(paths)
