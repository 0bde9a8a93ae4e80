"""Bad input to ``nnunet_ext convert busi``: named, all together, with a hint, before anything is written."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from busi_source import convert, lesion, mask_image, published, save, ultrasound
from PIL import Image

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion.picture_file import read
from nnunet_ext.dataset_conversion.picture_format import grey

SOUND = {"benign_0002", "benign_0003", "malignant_0001", "malignant_0002"}


def image(source: Path) -> Path:
    return source / "benign" / "benign (1).png"


def mask(source: Path) -> Path:
    return source / "benign" / "benign (1)_mask.png"


def claiming(path: Path, width: int, height: int) -> str:
    """A PNG that is sound but for being much smaller than its header claims."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b""))
    return str(path)


def case_problem_no_mask(source: Path) -> list[str]:
    mask(source).unlink()
    return [str(image(source)), "mask is missing; no benign (1)_mask.png", "masks/0/benign (1).png"]


def case_problem_no_image(source: Path) -> list[str]:
    image(source).unlink()
    return [str(mask(source)), "image is missing; no benign (1).png"]


def case_problem_sizes(source: Path) -> list[str]:
    save(mask_image(lesion((48, 64))), mask(source))
    return [f"{image(source)} is 64 x 48", f"{mask(source)} is 48 x 64"]


def case_problem_size_of_the_second_mask(source: Path) -> list[str]:
    path = save(mask_image(lesion((60, 48))), source / "benign" / "benign (1)_mask_1.png")
    return [f"{path} is 60 x 48"]


def case_problem_empty_mask(source: Path) -> list[str]:
    save(mask_image(np.zeros_like(lesion())), mask(source))
    return [str(mask(source)), "marks no lesion, but the image is benign"]


def case_problem_only_alpha(source: Path) -> list[str]:
    picture = mask_image(np.zeros_like(lesion())).convert("RGBA")
    picture.putalpha(mask_image(lesion()))
    save(picture, mask(source))
    return [str(mask(source)), "has an alpha channel that is not the same everywhere"]


def case_problem_white_with_alpha(source: Path) -> list[str]:
    picture = mask_image(np.ones_like(lesion())).convert("LA")
    picture.putalpha(mask_image(lesion()))
    save(picture, mask(source))
    return [str(mask(source)), "has an alpha channel that is not the same everywhere"]


def case_problem_inverted_mask(source: Path) -> list[str]:
    save(mask_image(~lesion()), mask(source))
    return [str(mask(source)), "marks 95 % of the image, as inverted masks do"]


def case_problem_white_border(source: Path) -> list[str]:
    area = np.ones_like(lesion())
    area[8:-8, 8:-8] = False
    save(mask_image(area), mask(source))
    return [str(mask(source)), "marks 100 % of the image's border, as inverted masks do"]


def case_problem_dark_palette(source: Path) -> list[str]:
    """In colours all of it is marked, in numbers the lesion."""
    picture = Image.fromarray(lesion().astype(np.uint8))
    picture.putpalette([10, 10, 40, 255, 0, 0])
    save(picture, mask(source))
    return [str(mask(source)), "has a palette in which black is not number 0 alone"]


def case_problem_lesion_is_number_0(source: Path) -> list[str]:
    picture = Image.fromarray((~lesion()).astype(np.uint8))
    picture.putpalette([200, 0, 0, 0, 0, 0])
    save(picture, mask(source))
    return [str(mask(source)), "has a palette in which black is not number 0 alone"]


def case_problem_grey_mask(source: Path) -> list[str]:
    levels = np.zeros(lesion().shape, np.uint8)
    levels[10:25, 20:40], levels[12:15, 22:30] = 128, 255
    save(Image.fromarray(levels), mask(source))
    return [str(mask(source)), "of 3 values from 0 to 255, 276 pixels are grey and 24 white"]


def case_problem_label_map(source: Path) -> list[str]:
    save(Image.fromarray(lesion().astype(np.uint8) + lesion(left=25)), mask(source))
    return [str(mask(source)), "marks no lesion, but the image is benign"]


def case_problem_16_bit_grey(source: Path) -> list[str]:
    save(Image.fromarray(np.full((48, 64), 1000, np.uint16)), image(source))
    return [str(image(source)), "16 bits per channel"]


def case_problem_16_bit_colour(source: Path) -> list[str]:
    cv2.imwrite(str(image(source)), np.full((48, 64, 3), 1000, np.uint16))
    return [str(image(source)), "16 bits per channel"]


def case_problem_cmyk(source: Path) -> list[str]:
    ultrasound().convert("CMYK").save(image(source), format="JPEG")
    return [str(image(source)), "is in mode CMYK"]


def case_problem_no_picture(source: Path) -> list[str]:
    image(source).write_text("<html>404</html>" * 100)
    return [str(image(source)), "is not a PNG, JPEG, BMP or TIFF file;"]


def case_problem_another_format(source: Path) -> list[str]:
    ultrasound().save(image(source), format="GIF")
    return [str(image(source)), "is not a PNG, JPEG, BMP or TIFF file but GIF;"]


def case_problem_jpeg_mask(source: Path) -> list[str]:
    mask_image(lesion()).save(mask(source), format="JPEG")
    return [str(mask(source)), "is JPEG, whose losses blur what a mask marks"]


def case_problem_two_pages(source: Path) -> list[str]:
    ultrasound().save(image(source), format="TIFF", save_all=True, append_images=[ultrasound(2)])
    return [str(image(source)), "holds 2 pictures"]


def case_problem_to_be_turned(source: Path) -> list[str]:
    tags = Image.Exif()
    tags[274] = 3
    ultrasound().save(image(source), format="JPEG", exif=tags)
    return [str(image(source)), "is to be turned or mirrored, says its EXIF data"]


def case_problem_16_bit_tiff(source: Path) -> list[str]:
    Image.fromarray(np.full((48, 64), 1000, np.uint16)).save(image(source), format="TIFF")
    return [str(image(source)), "16 bits per channel"]


def case_problem_truncated_jpeg(source: Path) -> list[str]:
    ultrasound().save(image(source), format="JPEG")
    image(source).write_bytes(image(source).read_bytes()[:-200])
    return [str(image(source)), "truncated or damaged"]


def case_problem_truncated_bmp(source: Path) -> list[str]:
    ultrasound().save(image(source), format="BMP")
    image(source).write_bytes(image(source).read_bytes()[:-200])
    return [str(image(source)), "truncated or damaged"]


def case_problem_truncated_tiff(source: Path) -> list[str]:
    ultrasound().save(image(source), format="TIFF")
    image(source).write_bytes(image(source).read_bytes()[:300])
    return [str(image(source)), "truncated or damaged"]


def case_problem_no_pixel_data(source: Path) -> list[str]:
    """A PNG of a header and an end."""
    content = image(source).read_bytes()
    image(source).write_bytes(content[:33] + content[-12:])
    return [str(image(source)), "truncated or damaged"]


def case_problem_not_named_as_masks_are(source: Path) -> list[str]:
    path = save(mask_image(lesion()), source / "benign" / "benign (1)_mask_final.png")
    return [str(path), "is not called as masks are, NAME_mask.png"]


def case_problem_empty_file(source: Path) -> list[str]:
    image(source).write_bytes(b"")
    return [str(image(source)), "is empty"]


def case_problem_truncated(source: Path) -> list[str]:
    image(source).write_bytes(image(source).read_bytes()[:-200])
    return [str(image(source)), "truncated or damaged"]


def case_problem_truncated_header(source: Path) -> list[str]:
    image(source).write_bytes(image(source).read_bytes()[:20])
    return [str(image(source)), "truncated or damaged (no header or no end)"]


def case_problem_without_its_end(source: Path) -> list[str]:
    image(source).write_bytes(image(source).read_bytes()[:-12])
    return [str(image(source)), "truncated or damaged"]


def case_problem_truncated_mask(source: Path) -> list[str]:
    mask(source).write_bytes(mask(source).read_bytes()[:-20])
    return [str(mask(source)), "truncated or damaged"]


def case_problem_damaged(source: Path) -> list[str]:
    data = bytearray(image(source).read_bytes())
    data[len(data) // 2] ^= 1
    image(source).write_bytes(data)
    return [str(image(source)), "truncated or damaged"]


def case_problem_bomb(source: Path) -> list[str]:
    return [claiming(image(source), 60_000, 60_000), "60,000 x 60,000 pixels", "decompression bomb"]


def case_problem_bomb_of_a_mask(source: Path) -> list[str]:
    return [claiming(mask(source), 2**31 - 1, 2**31 - 1), "decompression bomb"]


def case_problem_no_pixels(source: Path) -> list[str]:
    return [claiming(image(source), 0, 48), "0 x 48 pixels"]


def case_problem_fewer_pixels_than_claimed(source: Path) -> list[str]:
    return [claiming(image(source), 64, 48), "truncated or damaged"]


def case_problem_twice(source: Path) -> list[str]:
    again = save(ultrasound(1), source / "copy" / "benign" / image(source).name)
    return ["benign_0001 is there more than once", str(image(source)), str(again)]


def case_problem_collision(source: Path) -> list[str]:
    again = save(ultrasound(99), source / "benign" / "benign_01.png")
    save(mask_image(lesion()), source / "benign" / "benign_01_mask.png")
    return [str(image(source)), str(again), "would both be case benign_0001"]


def case_problem_broken_link(source: Path) -> list[str]:
    image(source).unlink()
    image(source).symlink_to(source / "gone")
    return [str(image(source)), "cannot be read"]


CASE_PROBLEMS = {
    name.removeprefix("case_problem_"): f for name, f in list(globals().items()) if name.startswith("case_problem_")
}


@pytest.fixture
def source(nnunet_folders: Path) -> Path:
    return published(nnunet_folders / "in")


@pytest.mark.parametrize("name", CASE_PROBLEMS)
def test_bad_case_is_named_and_nothing_written(nnunet_folders: Path, source: Path, name: str) -> None:
    expected = CASE_PROBLEMS[name](source)
    with pytest.raises(InputError) as caught:
        convert(source)
    assert len(caught.value.problems) == 1
    for words in (*expected, "--skip-bad"):
        assert words in str(caught.value)
    assert not os.listdir(nnunet_folders / "nnUNet_raw")
    outcome = convert(source, skip_bad=True)
    assert len(outcome.skipped) == 1
    assert {p.stem for p in outcome.folder.glob("labelsT?/*")} == SOUND


def test_a_normal_image_has_no_lesion(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in", normal=2)
    path = save(mask_image(lesion()), source / "normal" / "normal (1)_mask.png")
    with pytest.raises(InputError, match="marks a lesion, but the image is normal") as caught:
        convert(source, classes=("benign", "normal"))
    assert str(path) in str(caught.value)
    convert(source)  # nobody asked for it


def test_a_class_folder_and_a_name_that_differ(nnunet_folders: Path, source: Path) -> None:
    for name in ("benign (8).png", "benign (8)_mask.png"):
        save(mask_image(lesion()), source / "malignant" / name)
    with pytest.raises(InputError, match="is benign by its name but malignant by its folder") as caught:
        convert(source)
    assert len(caught.value.problems) == 2
    assert len(convert(source, skip_bad=True).skipped) == 2


@pytest.mark.parametrize("folder", ["bening", "."])
def test_unknown_class_folder(nnunet_folders: Path, source: Path, folder: str) -> None:
    save(ultrasound(9), source / folder / "benign (9).png")
    for skip_bad in (False, True):
        with pytest.raises(InputError, match=r"is not a class folder of BUSI.*benign \(9\)\.png") as caught:
            convert(source, skip_bad=skip_bad)
        assert str(source / folder) in str(caught.value)
    assert not os.listdir(nnunet_folders / "nnUNet_raw")


def test_unknown_class_of_a_flattened_image(nnunet_folders: Path, source: Path) -> None:
    path = save(ultrasound(9), source / "images" / "benignish (9).png")
    save(mask_image(lesion()), source / "masks" / "0" / path.name)
    with pytest.raises(InputError, match="neither its name nor its folder says its class") as caught:
        convert(source)
    assert str(path) in str(caught.value)


def test_all_problems_come_together(nnunet_folders: Path, source: Path) -> None:
    case_problem_16_bit_grey(source)
    save(mask_image(np.zeros_like(lesion())), source / "benign" / "benign (2)_mask.png")
    (source / "malignant" / "malignant (1).png").unlink()
    case_problem_truncated_mask(source)
    with pytest.raises(InputError) as caught:
        convert(source)
    assert len(caught.value.problems) == 4
    assert "benign_0001, benign_0002, malignant_0001" in caught.value.hint
    assert not os.listdir(nnunet_folders / "nnUNet_raw")


def test_nothing_found_and_nothing_left(nnunet_folders: Path, source: Path) -> None:
    (nnunet_folders / "empty").mkdir()
    with pytest.raises(InputError, match="no image of a lesion"):
        convert(nnunet_folders / "empty")
    with pytest.raises(InputError, match="no image of a lesion"):
        convert(source, classes=("normal",))
    with pytest.raises(InputError, match="is not a directory"):
        convert(nnunet_folders / "elsewhere")
    for path in source.rglob("*_mask.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no usable case is left"):
        convert(source, skip_bad=True)


def test_the_command_names_it_too(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = case_problem_bomb(source)
    assert main(["convert", "busi", "--source", str(source), "--num-processes", "1"]) == 2
    err = capsys.readouterr().err
    assert all(word in err for word in words)
    with pytest.raises(SystemExit):
        main(["convert", "busi", "--source", str(source), "--classes", "benignant"])


def test_no_wrong_byte_goes_unnoticed(tmp_path: Path) -> None:
    path = save(ultrasound(3), tmp_path / "image.png")
    data, expected = path.read_bytes(), np.asarray(ultrasound(3))
    refused = 0
    positions = range(0, len(data), 7)
    for position in positions:
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        try:
            np.testing.assert_array_equal(np.asarray(grey(read(path))), expected)
        except InputError as e:
            assert str(path) in str(e)  # noqa: PT017
            refused += 1
        path.write_bytes(data[:position])
        with pytest.raises(InputError, match=r"image\.png"):
            read(path)
    assert refused > 0.9 * len(positions)


def test_what_was_left_alone_is_named_in_errors_too(nnunet_folders: Path, source: Path) -> None:
    mask(source).unlink()
    save(ultrasound(9), source / "preview.png")
    save(ultrasound(9), source / "benign" / "benign (2).gif")
    with pytest.raises(InputError, match="its mask is missing") as caught:
        convert(source)
    for note in ("note: 1 picture left alone, without a mask and without a class in its name: preview.png", "(2).gif"):
        assert note in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"exclude": ("nothing*",)}, "--exclude nothing*: no file in"), ({"limit": 0}, "--limit 0: is at least 1")],
)
def test_impossible_choices_of_files(nnunet_folders: Path, source: Path, settings: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        convert(source, **settings)
    assert message in str(caught.value)
