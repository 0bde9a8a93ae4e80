"""The writer knows no image format: here it writes text, is stopped at every step, and continues."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lits_source import tree

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import writer
from nnunet_ext.dataset_conversion.raw_folder import RawFolder
from nnunet_ext.dataset_conversion.types import Layout, OutputFile
from nnunet_ext.dataset_conversion.writer import link, space_problem, write


@dataclass(frozen=True)
class Shout:
    """A recipe: the source in capitals."""

    source: Path

    def __call__(self, target: Path) -> None:
        target.write_text(self.source.read_text().upper())


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def folder(tmp_path: Path) -> RawFolder:
    return RawFolder(final=tmp_path / "raw" / "Dataset001_Text")


def text_dataset(source: Path, version: str = "1", files: int = 4) -> Layout:
    """Half of the files are linked, half are written."""
    source.mkdir(exist_ok=True)
    outputs = []
    for n in range(files):
        text = source / f"{version}-{n}.txt"
        text.write_text(f"text {n} of version {version}")
        size = text.stat().st_size
        outputs += [
            OutputFile(target=f"imagesTr/{n}.txt", sources=(text,), key=f"link {version}", size=size, estimate=size),
            OutputFile(target=f"labelsTr/{n}.txt", sources=(text,), key=f"shout {version}", recipe=Shout(text)),
        ]
    return Layout(files=tuple(outputs), documents={"dataset.json": {"version": version}, "conversion.json": {}})


@pytest.mark.parametrize("num_processes", [1, 2])
def test_writes_everything_and_leaves_nothing_else(tmp_path: Path, folder: RawFolder, num_processes: int) -> None:
    done = write(text_dataset(tmp_path / "in"), folder, mode="copy", num_processes=num_processes)
    assert done == Counter(copy=4, written=4)
    files = tree(folder.final)
    assert files["labelsTr/3.txt"] == b"TEXT 3 OF VERSION 1"
    assert files["imagesTr/3.txt"] == b"text 3 of version 1"
    assert os.listdir(folder.final.parent) == [folder.final.name]


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """Raise `Killed` at the n-th change of the file system's names, before or after it happens."""

    @contextlib.contextmanager
    def armed(step: int, *, after: bool) -> Iterator[None]:
        count = iter(range(10**6))

        def wrap(real):
            def counted(*args, **kwargs):
                now = next(count) == step
                if now and not after:
                    raise Killed
                result = real(*args, **kwargs)
                if now:
                    raise Killed
                return result

            return counted

        with monkeypatch.context() as patch:
            for name in ("replace", "rename", "unlink"):
                patch.setattr(Path, name, wrap(getattr(Path, name)))
            patch.setattr(writer.shutil, "rmtree", wrap(writer.shutil.rmtree))
            yield

    return armed


@pytest.mark.parametrize("after", [False, True])
def test_stopped_anywhere_a_second_run_completes(tmp_path: Path, stop_at, after: bool) -> None:
    dataset = text_dataset(tmp_path / "in")
    whole = RawFolder(final=tmp_path / "whole" / "Dataset001_Text")
    write(dataset, whole, mode="copy")
    for step in range(100):
        folder = RawFolder(final=tmp_path / str(step) / "Dataset001_Text")
        with contextlib.suppress(Killed), stop_at(step, after=after):
            write(dataset, folder, mode="copy")
            break
        if not folder.final.exists():
            assert not list(folder.final.parent.glob("Dataset*"))
            write(dataset, folder, mode="copy")
            assert os.listdir(folder.final.parent) == [folder.final.name]
        assert tree(folder.final) == tree(whole.final)
    assert 12 < step < 99  # all steps there are


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_overwriting_never_leaves_a_mixture(tmp_path: Path, stop_at, after: bool) -> None:
    new = text_dataset(tmp_path / "in", "new")
    for step in range(100):
        folder = RawFolder(final=tmp_path / str(step) / "Dataset001_Text")
        write(text_dataset(tmp_path / "in", "old"), folder, mode="copy")
        old = tree(folder.final)
        with contextlib.suppress(Killed), stop_at(step, after=after):
            write(new, folder, mode="copy", overwrite=True)
            break
        folder.recover()
        if tree(folder.final) == old:
            write(new, folder, mode="copy", overwrite=True)
        found = tree(folder.final)
        assert found["imagesTr/0.txt"] == b"text 0 of version new"
        assert set(found) == set(old)
    assert 12 < step < 99  # all steps there are


def test_finished_files_are_kept_only_for_the_same_key(tmp_path: Path, folder: RawFolder, monkeypatch) -> None:
    first, second = text_dataset(tmp_path / "in", "1"), text_dataset(tmp_path / "in", "2")
    monkeypatch.setattr(writer, "_write_documents", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        write(first, folder, mode="copy")
    monkeypatch.undo()
    mixed = Layout(files=(*first.files[:3], *second.files[3:]), documents=first.documents)
    done = write(mixed, folder, mode="copy")
    assert done["kept"] == 3
    assert tree(folder.final)["labelsTr/3.txt"] == b"TEXT 3 OF VERSION 2"


def test_an_emptied_file_is_not_kept(tmp_path: Path, folder: RawFolder, monkeypatch) -> None:
    dataset = text_dataset(tmp_path / "in")
    monkeypatch.setattr(writer, "_write_documents", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        write(dataset, folder, mode="copy")
    monkeypatch.undo()
    (folder.new / "labelsTr/0.txt").write_bytes(b"")
    assert write(dataset, folder, mode="copy")["kept"] == 7


def test_files_are_on_disk_before_they_get_their_names(tmp_path: Path, folder: RawFolder, monkeypatch) -> None:
    synced, replace = set(), Path.replace

    def named(path: Path, target: Path) -> Path:
        assert path.stat().st_ino in synced
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", lambda handle: synced.add(os.fstat(handle).st_ino))
    monkeypatch.setattr(Path, "replace", named)
    write(text_dataset(tmp_path / "in"), folder, mode="copy")
    assert {p.stat().st_ino for p in folder.final.rglob("*")} <= synced


def test_existing_dataset_needs_overwrite(tmp_path: Path, folder: RawFolder) -> None:
    write(text_dataset(tmp_path / "in"), folder, mode="copy")
    before = tree(folder.final)
    with pytest.raises(InputError, match="--overwrite"):
        write(text_dataset(tmp_path / "in", "2"), folder, mode="copy")
    assert tree(folder.final) == before


def test_two_at_once_are_refused(tmp_path: Path, folder: RawFolder) -> None:
    with folder.locked(), pytest.raises(InputError, match="another conversion"):
        write(text_dataset(tmp_path / "in"), RawFolder(final=folder.final), mode="copy")


def test_full_disk_is_reported_before_and_during(tmp_path: Path, folder: RawFolder, monkeypatch) -> None:
    dataset = text_dataset(tmp_path / "in")
    usage = writer.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert "too little disk space" in space_problem(dataset, folder, "copy")
    assert space_problem(dataset, folder, "hard") is None

    def full(*_args) -> None:
        raise OSError(28, "No space left on device", "some file")

    monkeypatch.setattr(writer, "copy", full)
    with pytest.raises(InputError, match=r"some file: the disk is full[\s\S]*continues"):
        write(dataset, folder, mode="copy")


@pytest.mark.parametrize("mode", ["auto", "hard", "symlink"])
def test_links_cost_no_bytes(tmp_path: Path, folder: RawFolder, mode: str) -> None:
    dataset = text_dataset(tmp_path / "in")
    done = write(dataset, folder, mode=mode)
    assert done["copy"] == 0
    assert done["written"] == 4
    target = folder.final / "imagesTr/0.txt"
    assert target.read_text() == "text 0 of version 1"
    assert target.is_symlink() == (mode == "symlink")
    if mode == "hard":
        assert target.samefile(dataset.files[0].sources[0])


def test_link_modes_that_fail(tmp_path: Path, monkeypatch) -> None:
    source = tmp_path / "a"
    source.write_text("a")

    def refuse(*_args, **_kwargs) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setitem(writer._LINKS, "hard", refuse)
    with pytest.raises(InputError, match=r"no hard link[\s\S]*--link auto"):
        link(source, tmp_path / "b", "hard")
    assert link(source, tmp_path / "c", "auto") in ("reflink", "symlink")
    monkeypatch.setitem(writer._LINKS, "symlink", refuse)
    assert link(source, tmp_path / "d", "auto") in ("reflink", None)
    assert not (tmp_path / "b").exists()


def test_what_must_not_share_is_cloned_or_copied(tmp_path: Path, folder: RawFolder, monkeypatch) -> None:
    source = tmp_path / "a"
    source.write_text("a")
    assert link(source, tmp_path / "b", "auto", share=False) in ("reflink", None)
    assert link(source, tmp_path / "c", "hard", share=False) == "hard"
    files = (OutputFile(target="labelsTr/a", sources=(source,), key="", estimate=100, share=False),)
    usage = writer.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert "too little" in space_problem(Layout(files=files, documents={}), folder, "auto")


def test_hard_link_goes_to_the_file_behind_a_link(tmp_path: Path) -> None:
    real, alias = tmp_path / "real", tmp_path / "alias"
    real.write_text("a")
    alias.symlink_to(real)
    link(alias, tmp_path / "b", "hard")
    assert not (tmp_path / "b").is_symlink()
