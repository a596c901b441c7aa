import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL import __version__ as pillow

from deepexp.data import decode
from deepexp.errors import InputError

_reads_its_own_ycbcr = pytest.mark.skipif(
    int(pillow.partition(".")[0]) < 13, reason=f"Pillow {pillow} cannot read the YCbCr pictures that it writes as TIFF"
)
RED = np.zeros((6, 4, 3), np.uint8) + np.array([200, 30, 10], np.uint8)


def save(path: Path, values: np.ndarray, **options: object) -> str:
    Image.fromarray(values).save(path, **options)
    return str(path)


def test_lossless_pictures_come_back_exactly(tmp_path: Path) -> None:
    values = np.random.RandomState(0).randint(0, 256, (6, 4, 3)).astype(np.uint8)
    for extension in ("png", "bmp", "ppm", "tif"):
        path = save(tmp_path / f"x.{extension}", values)
        assert np.array_equal(decode.decode(path, 3, 6, 4)[0], values)
        assert decode.channels_and_size(path) == (3, 6, 4)


def test_grey_pictures_are_decoded(tmp_path: Path) -> None:
    values = np.random.RandomState(0).randint(0, 256, (6, 4)).astype(np.uint8)
    path = save(tmp_path / "x.png", values)
    assert decode.channels_and_size(path) == (1, 6, 4)
    assert np.array_equal(decode.decode(path, 1, 6, 4)[0][:, :, 0], values)
    assert np.array_equal(decode.decode(path, 3, 6, 4)[0], np.repeat(values[:, :, None], 3, 2))
    assert decode.decode(path, 1, 6, 4)[1] is False


def test_colour_becomes_luminance_and_is_reported(tmp_path: Path) -> None:
    grey, lost, _ = decode.decode(save(tmp_path / "x.png", RED), 1, 6, 4)
    assert lost
    assert abs(int(grey[0, 0, 0]) - (0.299 * 200 + 0.587 * 30 + 0.114 * 10)) <= 1  # ITU-R 601


@pytest.mark.parametrize(
    ("mode", "colour"),
    [
        ("CMYK", (120, 150, 140, 40)),
        ("LAB", (120, 150, 140)),
        pytest.param("YCbCr", (120, 150, 140), marks=_reads_its_own_ycbcr),
    ],
)
def test_other_colours_become_grey_as_well(tmp_path: Path, mode: str, colour: tuple[int, ...]) -> None:
    path = str(tmp_path / "x.tif")
    Image.new(mode, (4, 6), colour).save(path)
    rgb, grey = (decode.decode(path, channels, 6, 4)[0][0, 0].astype(int) for channels in (3, 1))
    assert decode.channels_and_size(path) == (3, 6, 4)
    assert abs(grey[0] - rgb @ [0.299, 0.587, 0.114]) <= 1


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    path = save(tmp_path / "x.png", values)
    assert decode.channels_and_size(path) == (1, 2, 3)
    assert decode.decode(path, 1, 2, 3)[0][:, :, 0].tolist() == [[0, 0, 1], [128, 255, 255]]


def test_floats_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.tif", np.full((3, 3), np.nan, np.float32))
    with pytest.raises(decode.BrokenPicture, match="32 bits a pixel"):
        decode.decode(path, 1, 3, 3)
    with pytest.raises(InputError, match=r"x\.tif: 32 bits a pixel"):
        decode.channels_and_size(path)


def test_palette_and_alpha_become_colour(tmp_path: Path) -> None:
    Image.fromarray(RED).quantize(4).save(tmp_path / "palette.png")
    save(tmp_path / "alpha.png", np.dstack([RED, np.full((6, 4), 7, np.uint8)]))
    for name in ("palette.png", "alpha.png"):
        path = str(tmp_path / name)
        assert decode.channels_and_size(path) == (3, 6, 4)
        assert np.array_equal(decode.decode(path, 3, 6, 4)[0], RED)


def test_transparency_is_reported_where_pixels_have_it(tmp_path: Path) -> None:
    palette, grey = Image.fromarray(RED).quantize(4), Image.fromarray(RED).convert("L")
    palette.save(tmp_path / "hole.png", transparency=int(np.asarray(palette)[0, 0]))
    grey.save(tmp_path / "grey.png", transparency=int(np.asarray(grey)[0, 0]))
    Image.fromarray(np.zeros((6, 4), np.uint16)).save(tmp_path / "deep.png", transparency=0)
    for name, alpha in (("clear.png", 254), ("clear.webp", 0), ("opaque.png", 255)):
        save(tmp_path / name, np.dstack([RED, np.full((6, 4), alpha, np.uint8)]))
    palette.save(tmp_path / "plain.png")
    found = {path.name for path in tmp_path.iterdir() if decode.decode(str(path), 1, 6, 4)[2]}
    assert found == {"hole.png", "grey.png", "deep.png", "clear.png", "clear.webp"}
    assert decode.decode_many([str(tmp_path / name) for name in ("hole.png", "plain.png")], (1, 6, 4))[2:] == (2, 1)


def test_camera_orientation_is_applied(tmp_path: Path) -> None:
    values = np.random.RandomState(0).randint(0, 256, (6, 4, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    path = save(tmp_path / "x.png", values, exif=exif)
    assert decode.channels_and_size(path) == (3, 4, 6)
    assert np.array_equal(decode.decode(path, 3, 4, 6)[0], np.rot90(values, -1))


def test_resizing_is_bilinear_with_antialiasing(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = np.random.RandomState(0).randint(0, 256, (40, 30, 3)).astype(np.uint8)
    ours, *_ = decode.decode(save(tmp_path / "x.png", values), 3, 16, 10)
    reference = torch.nn.functional.interpolate(
        torch.from_numpy(values).permute(2, 0, 1)[None].double(), (16, 10), mode="bilinear", antialias=True
    )
    assert np.abs(reference[0].permute(1, 2, 0).numpy() - ours).max() <= 1


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "gif", "webp"])
def test_truncated_pictures_are_broken(tmp_path: Path, extension: str) -> None:
    values = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    path = tmp_path / f"x.{extension}"
    save(path, values)
    content = path.read_bytes()
    for length in (0, 3, 20, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(decode.BrokenPicture):
            decode.decode(str(path), 3, 64, 64)


def test_any_damage_gives_a_picture_or_broken_picture(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    values = random.randint(0, 256, (16, 16, 3)).astype(np.uint8)
    for extension in ("png", "jpg", "gif", "tif", "bmp", "ppm", "webp"):
        path = tmp_path / f"x.{extension}"
        save(path, values)
        content = bytearray(path.read_bytes())
        for _ in range(60):
            damaged = bytearray(content)
            for position in random.randint(0, len(content), 3):
                damaged[position] = random.randint(256)
            path.write_bytes(damaged)
            try:
                with warnings.catch_warnings(action="ignore"):
                    assert decode.decode(str(path), 3, 16, 16)[0].shape == (16, 16, 3)
            except decode.BrokenPicture as error:
                assert str(error)


def test_other_files_are_broken(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("<html>")
    with pytest.raises(decode.BrokenPicture, match="not a picture in a format that is known"):
        decode.decode(str(tmp_path / "x.jpg"), 3, 6, 4)
    with pytest.raises(decode.BrokenPicture, match="No such file"):
        decode.decode(str(tmp_path / "absent.jpg"), 3, 6, 4)


def test_postscript_is_not_run(tmp_path: Path) -> None:
    Image.fromarray(RED).save(tmp_path / "x.eps")
    path = (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(decode.BrokenPicture, match="not a picture in a format that is known"):
        decode.decode(str(path), 3, 6, 4)


def test_huge_pictures_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    # A hundred megapixels in some hundred kilobytes.
    Image.new("L", (10_000, 10_000)).save(tmp_path / "x.png")
    with pytest.raises(decode.BrokenPicture, match="too large, scale it down"):
        decode.decode(str(tmp_path / "x.png"), 1, 8, 8)
    with pytest.raises(InputError, match=r"x\.png: too large"):
        decode.channels_and_size(str(tmp_path / "x.png"))


def test_decoding_many_names_all_broken_pictures(tmp_path: Path) -> None:
    good = save(tmp_path / "good.png", RED)
    (tmp_path / "bad.png").write_bytes(b"")
    pixels, broken, lost_colour, _ = decode.decode_many([good, str(tmp_path / "bad.png"), good], (3, 6, 4))
    assert pixels == RED.tobytes() + bytes(RED.size) + RED.tobytes()
    assert [path for path, _ in broken] == [str(tmp_path / "bad.png")] and lost_colour == 0


def test_names_that_are_not_unicode_can_be_printed() -> None:
    assert decode.show("a\udcffb") == "a�b"
