"""SAM's checkpoints: ``nnunet_ext weights`` against a local server that cuts, lies and fails; reading them safely."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from nnunet_ext import weights
from nnunet_ext.cli import main
from nnunet_ext.common.environment import SAM_CHECKPOINT
from nnunet_ext.common.errors import InputError
from nnunet_ext.weights import download, read_state_dict

CONTENT = bytes(range(256)) * 2048
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` at any path; its attributes say how badly."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.length = True  # say how long the answer is
        self.status: int | None = None  # answer this instead
        self.redirects = 0  # answers that lead here again
        self.cuts: list[int] = []  # bytes after which the next connections break
        self.silence = 0.0  # seconds before an answer
        self.answers = 0  # with content

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/sam.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        time.sleep(self.server.silence)
        if self.server.status:
            self.send_error(self.server.status)
            return
        if self.server.redirects:
            self.server.redirects -= 1
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
            return
        self.send_response(200)
        if self.server.length:
            self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.server.answers += 1
        self.wfile.write(self.server.content[: self.server.cuts.pop(0) if self.server.cuts else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(weights, "PAUSE", 0.001)
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def checkpoint(server: Server) -> weights.Checkpoint:
    return weights.Checkpoint("vit_b", server.url, len(CONTENT), SHA256)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "sam.pth"


def assert_downloaded(path: Path) -> None:
    """The file is right and alone."""
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == [path.name]


def assert_refused(checkpoint: weights.Checkpoint, path: Path, message: str, **options: Any) -> None:
    """The download ends with that message, and nothing is left; a file that was there is untouched."""
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(InputError, match=message):
        download(checkpoint, path, **options)
    assert os.listdir(path.parent) == ([] if before is None else [path.name])
    assert before is None or path.read_bytes() == before


def test_in_one_go(server: Server, checkpoint: weights.Checkpoint, path: Path) -> None:
    seen: list[int] = []
    download(checkpoint, path, track=seen.append)
    assert_downloaded(path)
    assert server.answers == 1
    assert seen == sorted(seen)
    assert seen[-1] == len(CONTENT)


@pytest.mark.parametrize("length", [True, False])
def test_cut_connections_are_tried_again(
    server: Server, checkpoint: weights.Checkpoint, path: Path, length: bool
) -> None:
    server.length = length
    server.cuts = [200_000, 0] if length else []
    download(checkpoint, path)
    assert_downloaded(path)


def test_connection_that_is_always_cut(server: Server, checkpoint: weights.Checkpoint, path: Path) -> None:
    server.cuts = [200_000] * weights.ATTEMPTS
    assert_refused(checkpoint, path, r"closed early \(after 3 attempts\)\.\nCheck the address and the network\.")
    server.length, server.cuts = False, [200_000]  # nobody can tell but by the checksum
    assert_refused(checkpoint, path, f"expected {SHA256} but got {hashlib.sha256(CONTENT[:200_000]).hexdigest()}")


def test_wrong_content_of_the_right_size(server: Server, checkpoint: weights.Checkpoint, path: Path) -> None:
    server.content = b"!" + CONTENT[1:]
    assert_refused(checkpoint, path, f"{SHA256} but got {hashlib.sha256(server.content).hexdigest()}(.|\n)*another one")
    assert server.answers == 1


@pytest.mark.parametrize(
    ("content", "length", "offered"),
    [
        (b"<html>Please log in</html>", True, "26 bytes"),
        (CONTENT + b"more", True, "524,292 bytes"),
        (CONTENT * 3, False, "more than 524,288 bytes"),
    ],
)
def test_content_of_another_size(
    server: Server, checkpoint: weights.Checkpoint, path: Path, content: bytes, length: bool, offered: str
) -> None:
    """It is not read to its end, which may never come."""
    server.content, server.length = content, length
    path.parent.mkdir()
    path.write_bytes(b"an earlier file")
    assert_refused(checkpoint, path, f"offers {offered}, not 524,288")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"sam\.pth: HTTP 404 Not Found\.\nCheck the address and the network\."),
        (503, r"HTTP 503 Service Unavailable \(after 3 attempts\)"),
    ],
)
def test_statuses(server: Server, checkpoint: weights.Checkpoint, path: Path, status: int, message: str) -> None:
    server.status = status
    assert_refused(checkpoint, path, message)


def test_redirects(server: Server, checkpoint: weights.Checkpoint, path: Path) -> None:
    server.redirects = 10**9
    assert_refused(checkpoint, path, "30 redirects")
    server.redirects = 2
    download(checkpoint, path)
    assert_downloaded(path)


def test_silent_server(
    server: Server, checkpoint: weights.Checkpoint, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "TIMEOUT", (1, 0.05))
    server.silence = 0.3
    assert_refused(checkpoint, path, r"no answer within 0\.05 s \(after 3 attempts\)")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/sam.pth", r"Connection refused \(after 3 attempts\)"),
        ("sam.pth", "Check the address"),
        ("ftp://127.0.0.1/sam.pth", "Check the address"),
    ],
)
def test_addresses_that_lead_nowhere(checkpoint: weights.Checkpoint, path: Path, url: str, message: str) -> None:
    assert_refused(checkpoint, path, message, url=url)


def test_no_space(checkpoint: weights.Checkpoint, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    assert_refused(checkpoint, path, "has 0 MB free; 1 are needed")


def test_disk_that_fills_up(checkpoint: weights.Checkpoint, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "sync_file", full)
    assert_refused(checkpoint, path, r"sam\.pth cannot be written: No space left on device")


def test_folder_that_cannot_be_made(checkpoint: weights.Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written: Not a directory"):
        download(checkpoint, tmp_path / "file" / "folder" / "sam.pth")


def test_two_downloads_at_once(server: Server, checkpoint: weights.Checkpoint, path: Path) -> None:
    path.parent.mkdir()
    with FileLock(f"{path}.lock"), pytest.raises(InputError, match="another process is downloading"):
        download(checkpoint, path)
    download(checkpoint, path)
    assert_downloaded(path)


def test_what_a_killed_download_left_is_removed(checkpoint: weights.Checkpoint, path: Path) -> None:
    left = path.parent / ".sam.pth.partial"
    left.mkdir(parents=True)
    (left / "tmp123").write_bytes(CONTENT[:1000])
    download(checkpoint, path)
    assert_downloaded(path)


@pytest.fixture
def command_line(
    checkpoint: weights.Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Run ``nnunet_ext weights ...`` with an empty cache: exit code, output, errors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(SAM_CHECKPOINT, raising=False)
    monkeypatch.setitem(weights.CHECKPOINTS, "vit_b", checkpoint)

    def run(*arguments: str) -> tuple[int, str, str]:
        return main(["weights", *arguments]), *capsys.readouterr()

    return run


def test_list(command_line, tmp_path: Path) -> None:
    folder = tmp_path / "nnunet_ext"
    for arguments in ((), ("list",)):
        code, out, _ = command_line(*arguments)
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == list(weights.CHECKPOINTS)
        assert out.count("not here") == 3
        assert f"1,250 MB  not here      {folder / 'sam_vit_l_0b3195.pth'}" in out
    folder.mkdir()
    (folder / "sam.pth").write_bytes(CONTENT)
    assert " here " in command_line()[1].splitlines()[0]
    (folder / "sam.pth").write_bytes(b"short")
    assert "wrong size" in command_line()[1].splitlines()[0]


def test_the_variable_comes_first(command_line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SAM_CHECKPOINT, str(tmp_path / "mine.pth"))
    assert command_line("path")[1] == f"{tmp_path / 'mine.pth'}\n"
    assert command_line("list")[1].startswith(f"{SAM_CHECKPOINT}={tmp_path / 'mine.pth'} takes the place of the cache")
    monkeypatch.setenv(SAM_CHECKPOINT, weights.RANDOM)
    assert command_line("list")[1].count("not used") == 3
    code, _, err = command_line("path")
    assert code == 2
    assert "NNUNET_EXT_SAM_CHECKPOINT=random: no checkpoint is used.\nUnset" in err


def test_download_verify_path(command_line, tmp_path: Path) -> None:
    path = tmp_path / "nnunet_ext" / "sam.pth"
    code, out, err = command_line("path")
    assert (code, out) == (1, f"{path}\n")
    assert "Run: nnunet_ext weights download vit_b (or download http" in err
    assert command_line("verify")[0] == 1
    code, out, _ = command_line("download")
    assert code == 0
    assert out == f"{path}: 524,288 bytes, SHA-256 {SHA256}\n"
    assert_downloaded(path)
    assert command_line("download")[1] == f"{path} is there and right: nothing to do.\n"
    assert command_line("path")[0] == 0
    code, out, _ = command_line("verify")
    assert code == 0
    assert out == f"ok   {path}: 524,288 bytes, SHA-256 {SHA256}\n"
    assert weights.require(weights.CHECKPOINTS["vit_b"]) == path


@pytest.mark.parametrize("content", [CONTENT[:-1], b"!" + CONTENT[1:]])
def test_wrong_file(command_line, tmp_path: Path, content: bytes) -> None:
    """Truncated or tampered: refused with both hashes, replaced only when asked to."""
    path = tmp_path / "nnunet_ext" / "sam.pth"
    path.parent.mkdir()
    path.write_bytes(content)
    hashes = f"SHA-256 {hashlib.sha256(content).hexdigest()}, not {SHA256}"
    code, out, _ = command_line("verify")
    assert code == 1
    assert hashes in out
    assert "-> Run: nnunet_ext weights download vit_b --overwrite (or" in out
    with pytest.raises(InputError, match=hashes):
        weights.require(weights.CHECKPOINTS["vit_b"])
    code, _, err = command_line("download")
    assert code == 2
    assert hashes in err
    assert "Add --overwrite to replace it." in err
    assert path.read_bytes() == content
    assert command_line("download", "--overwrite")[0] == 0
    assert_downloaded(path)


def test_mirror(command_line, tmp_path: Path, server: Server) -> None:
    assert command_line("download", "--url", server.url.replace("sam.pth", "mirror/of/it"))[0] == 0
    assert_downloaded(tmp_path / "nnunet_ext" / "sam.pth")


def test_another_checkpoint_is_recognised(command_line, tmp_path: Path) -> None:
    file = tmp_path / "sam.pth"
    file.write_bytes(CONTENT)
    other = weights.CHECKPOINTS["vit_l"]
    assert str(weights.problem(file, other)).endswith(f"not {other.sha256}; it is the checkpoint of vit_b")


def test_no_file_needed_for_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SAM_CHECKPOINT, weights.RANDOM)
    assert weights.require(weights.CHECKPOINTS["vit_b"]) is None


# reading a checkpoint: tensors by name, and one clear error for everything else

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(3)}


def saved(tmp_path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, tmp_path / "c.pth", **options)
    return tmp_path / "c.pth"


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"model": TENSORS, "epoch": 3},
        {"state_dict": TENSORS, "optimizer": {"state": {}}},
        {f"module.{k}": v for k, v in TENSORS.items()},
        {"model": {f"module.{k}": v for k, v in TENSORS.items()}},
        {k: torch.nn.Parameter(v, requires_grad=False) for k, v in TENSORS.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_it_takes(tmp_path: Path, content: Any, zipped: bool) -> None:
    tensors = read_state_dict(saved(tmp_path, content, _use_new_zipfile_serialization=zipped))
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)


def test_a_prefix_that_not_all_keys_have_stays(tmp_path: Path) -> None:
    content = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert read_state_dict(saved(tmp_path, content)).keys() == content.keys()


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_objects_are_refused(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path, {**TENSORS, "best": np.float64(1)}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"holds more than tensors \(numpy\.\S+\), and reading that can run any code"):
        read_state_dict(path)


class Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("ran"),)


def test_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="can run any code: refused"):
        read_state_dict(saved(tmp_path, {"model": Evil()}))
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"<html></html>", b"PK\x03\x04", bytes(1000), b"\x80\x02}q\x00."])
def test_no_torch_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"c\.pth (is not a torch checkpoint|holds no state dict)"):
        read_state_dict(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated_file(tmp_path: Path, zipped: bool, part: float) -> None:
    path = saved(tmp_path, {"a": torch.zeros(1000)}, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError, match=r"c\.pth is not a torch checkpoint"):
        read_state_dict(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"c\.pth cannot be read: No such file or directory"):
        read_state_dict(tmp_path / "c.pth")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"epoch": 3, "loss": 0.1}, "'epoch' is not a tensor but 3."),
        ({"model": {}}, "an empty dict"),
        ({}, "an empty dict"),
        (torch.ones(3), "a Tensor"),
        ([torch.ones(3)], "a list"),
        ({0: torch.ones(3)}, "its key 0 is not a name"),
    ],
)
def test_no_state_dict(tmp_path: Path, content: Any, found: str) -> None:
    with pytest.raises(InputError) as error:
        read_state_dict(saved(tmp_path, content))
    assert found in str(error.value)
    assert "'model' or 'state_dict'" in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(tmp_path: Path, value: float) -> None:
    content = {"fine": torch.ones(3), **{f"bad{i}": torch.tensor([1.0, value]).half() for i in range(5)}}
    with pytest.raises(InputError, match="NaN or infinite numbers in bad0, bad1, bad2 and 2 more"):
        read_state_dict(saved(tmp_path, content))
