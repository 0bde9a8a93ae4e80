"""The command line around the verbs: exit codes and messages."""

from __future__ import annotations

import argparse
import errno
import os
import runpy
import subprocess
import sys

import pytest

from nnunet_ext import __version__, registry
from nnunet_ext.cli import VERBS, build_parser, list_, main
from nnunet_ext.common.errors import InputError


def raise_from_list(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(list_, "run", run)


def test_list_prints_every_entry_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for entry in registry.ENTRIES:
        (line,) = (line for line in lines if line.split()[:1] == [entry.name])
        assert entry.summary in line
        assert entry.paper_row in line
        assert entry.plans in line
        if entry.parameters:
            assert f"{entry.parameters:,} parameters" in line


def test_list_has_a_heading_for_every_kind() -> None:
    assert set(list_.HEADINGS) == set(registry.ROOTS.values())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"nnunet_ext {__version__}\n"


@pytest.mark.parametrize(("argv", "message"), [(["nothing"], "invalid choice: 'nothing'"), ([], "required: VERB")])
def test_wrong_verb(capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(argv)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert verb in build_parser().format_help()
    with pytest.raises(SystemExit, match=r"^0$"):
        main([verb, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: nnunet_ext {verb}")


def test_wrong_input_is_a_message_and_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raise_from_list(monkeypatch, InputError("a.nii is empty.", "b.nii is no NIfTI.", hint="Download them again."))
    assert main(["list"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: 2 problems:\n  - a.nii is empty.\n  - b.nii is no NIfTI.\nDownload them again.\n"


def test_interruption_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raise_from_list(monkeypatch, KeyboardInterrupt())
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"  # the same command would not continue


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_is_silent(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "nnunet_ext", "list"],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert result.stderr == b""
    assert result.returncode == 141


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EACCES, errno.ENOSPC, errno.ELOOP])
def test_what_the_system_refuses_is_a_message_and_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    raise_from_list(monkeypatch, OSError(number, os.strerror(number), "a.nii"))
    assert main(["list"]) == 2
    said = "the disk is full" if number == errno.ENOSPC else os.strerror(number)
    assert capsys.readouterr() == ("", f"error: a.nii: {said}.\n")


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError, BrokenPipeError, FileNotFoundError(errno.ENOENT, "lost", "a.nii"), OSError(errno.EACCES, "?")],
)  # a pipe from elsewhere, a worker's; a file that we have lost; nothing that is named
def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch, error: type[Exception] | Exception) -> None:
    raise_from_list(monkeypatch, error() if isinstance(error, type) else error)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        main(["list"])


def test_python_m(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["nnunet_ext", "list"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_module("nnunet_ext", run_name="__main__")
    assert "nnUNetTrainerRAUNet" in capsys.readouterr().out
