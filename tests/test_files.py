"""The one reader of JSON and TOML, and the shapes that it checks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nnunet_ext.common import files
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.shapes import Count, Shape, Text, read_as

BROKEN = {
    "": "not valid JSON",
    "{": "not valid JSON",
    "[]": "holds a list, not a dict",
    "null": "holds a NoneType, not a dict",
    '{"a": 1, "b": 2, "a": 3}': "'a' is there twice",
    '{"a": ' * 60 + "1" + "}" * 60: "nested too deeply",
    '{"a": ' + "[" * 100_000: "nested too deeply",
    '{"a": "\\ud800"}': "not valid JSON: .*surrogates not allowed",
    '{"\\ud800": 1}': "surrogates not allowed",
    '{"a": ["b\\u0000c"]}': "null character",
    '{"a": ' + "9" * 5000 + "}": "not valid JSON",
}


@pytest.mark.parametrize(("text", "message"), BROKEN.items(), ids=[text[:12] for text in BROKEN])
def test_what_is_no_json_of_ours_is_named(tmp_path: Path, text: str, message: str) -> None:
    (file := tmp_path / "a.json").write_text(text)
    for read in (files.read_json, files.read_json_if_any):
        with pytest.raises(InputError, match=message) as error:
            read(file, hint="Get another one.")
        assert str(error.value).startswith(str(file))
        assert error.value.hint == "Get another one."
    assert files.read_json_if_sound(file) == {}


def test_a_missing_file_is_not_a_broken_one(tmp_path: Path) -> None:
    missing = tmp_path / "a.json"
    assert files.read_json_if_any(missing) == {}
    assert files.read_json_if_any(missing, list) == []
    assert files.read_json_if_any(tmp_path / ("a" * 300)) == {}
    with pytest.raises(InputError, match="No such file"):
        files.read_json(missing)


def test_what_is_no_file_or_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, make in (("pipe", os.mkfifo), ("folder", os.mkdir)):
        make(tmp_path / name)
        with pytest.raises(InputError, match=f"{name} is not a file"):
            files.read_json(tmp_path / name)
    (tmp_path / "a.json").write_text('{"a": 1}')
    monkeypatch.setattr(files, "LARGEST", 7)
    with pytest.raises(InputError, match="has 8 bytes, far more"):
        files.read_json(tmp_path / "a.json")


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    (file := tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    for read in (files.read_json, files.read_toml):
        with pytest.raises(InputError, match="not text in UTF-8: invalid start byte at byte 7"):
            read(file)
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json(file) == {"a": 1}


def test_toml(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    for text, message in (
        ("a = ", "not valid TOML"),
        ("a = " + "[" * 20_000, "nested too deeply"),
        ("a = " + "9" * 5000, "not valid TOML"),
        ("a = [[[" + '{b = "\\u0000"}' + "]]]", "null character"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            files.read_toml(file)
    file.write_text('a = "ä"')
    assert files.read_toml(file) == {"a": "ä"}


def test_names_that_are_no_utf_8_survive(tmp_path: Path) -> None:
    """Linux knows such names of files, and a record of a conversion holds them."""
    name = os.fsdecode(b"im\xffage.png")
    files.write_json(tmp_path / "a.json", {name: [name]})
    assert files.read_json(tmp_path / "a.json") == {name: [name]}


class Inner(Shape):
    file: Text
    size: Count = 0


class Outer(Shape):
    name: Text = ""
    parts: list[Inner] = []


def test_a_shape_names_all_that_differs_and_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"name": 5, "parts": [{"file": "a"}, {"size": -1}]}))
    with pytest.raises(InputError) as error:
        read_as(Outer, file)
    assert error.value.problems == (
        f"{file}: name: Input should be a valid string.",
        f"{file}: parts, item 2, file: Field required.",
        f"{file}: parts, item 2, size: Input should be greater than or equal to 0.",
    )
    file.write_text(json.dumps({"parts": [{"size": "x"}] * 9}))
    with pytest.raises(InputError, match="and 10 faults more"):
        read_as(Outer, file)
    file.write_text(json.dumps({"name": "a", "more": [1]}))
    assert read_as(Outer, file).model_dump() == {"name": "a", "parts": [], "more": [1]}
