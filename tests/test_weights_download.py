"""``nnunet_ext weights`` against a local server that resumes, cuts, lies and fails."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.weights import download as module
from nnunet_ext.weights import sam
from nnunet_ext.weights.download import download

CONTENT = bytes(range(256)) * 2048
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` at any path; its attributes say how badly."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True
        self.length = True  # say how long the answer is
        self.status: int | None = None  # answer this instead
        self.cuts: list[int] = []  # bytes after which the next connections break
        self.silence = 0.0  # seconds before an answer
        self.starts: list[int] = []  # first byte of every answer with content

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
        content, start = self.server.content, 0
        if self.server.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.server.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.server.starts.append(start)
        rest = content[start:]
        self.wfile.write(rest[: self.server.cuts.pop(0)] if self.server.cuts else rest)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.001)
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def checkpoint(server: Server) -> sam.Checkpoint:
    return sam.Checkpoint("vit_b", server.url, len(CONTENT), SHA256)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "sam.pth"


def part_of(path: Path, content: bytes | None = None) -> Path:
    """The name of the unfinished file, and if given its content."""
    part = path.with_name("sam.pth.part")
    if content is not None:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
    return part


def assert_downloaded(path: Path) -> None:
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == [path.name]


def test_in_one_go(server: Server, checkpoint: sam.Checkpoint, path: Path) -> None:
    seen: list[int] = []
    download(checkpoint, path, track=seen.append)
    assert_downloaded(path)
    assert server.starts == [0]
    assert seen == sorted(seen)
    assert seen[-1] == len(CONTENT)


def test_cut_connections_are_resumed(server: Server, checkpoint: sam.Checkpoint, path: Path) -> None:
    server.cuts = [200_000, 0, 0, 150_000, 0]
    download(checkpoint, path)
    assert_downloaded(path)
    assert len(server.starts) == 6
    assert server.starts == sorted(server.starts)
    assert server.starts[1] > 100_000  # a cut loses no more than one block


def test_an_interrupted_download_is_continued(server: Server, checkpoint: sam.Checkpoint, path: Path) -> None:
    server.cuts = [200_000, *[0] * module.ATTEMPTS]
    with pytest.raises(InputError, match=r"closed early \(after 5 attempts\)\.\nThe same command continues after"):
        download(checkpoint, path)
    done = part_of(path).stat().st_size
    assert done > 100_000
    assert not path.exists()
    server.starts.clear()
    download(checkpoint, path)
    assert_downloaded(path)
    assert server.starts == [done]


@pytest.mark.parametrize("length", [True, False])
def test_server_without_ranges(server: Server, checkpoint: sam.Checkpoint, path: Path, length: bool) -> None:
    part_of(path, CONTENT[:1000])
    server.ranges, server.length, server.cuts = False, length, [300_000]
    download(checkpoint, path)
    assert_downloaded(path)
    assert server.starts == [0, 0]


def test_server_without_ranges_that_never_gets_further(server: Server, checkpoint: sam.Checkpoint, path: Path) -> None:
    server.ranges, server.cuts = False, [300_000] * 20
    with pytest.raises(InputError, match="5 attempts"):
        download(checkpoint, path)


@pytest.mark.parametrize("wrong", [b"?" * 1000, b"?" * len(CONTENT), CONTENT + b"more"])
def test_wrong_partial_file_is_not_kept(server: Server, checkpoint: sam.Checkpoint, path: Path, wrong: bytes) -> None:
    part_of(path, wrong)
    download(checkpoint, path)
    assert_downloaded(path)
    assert server.starts[-1] == 0


def test_complete_partial_file_needs_no_server(checkpoint: sam.Checkpoint, path: Path, server: Server) -> None:
    part_of(path, CONTENT)
    server.status = 500
    download(checkpoint, path)
    assert_downloaded(path)


def test_tampered_content(server: Server, checkpoint: sam.Checkpoint, path: Path) -> None:
    server.content = b"!" + CONTENT[1:]
    with pytest.raises(InputError) as error:
        download(checkpoint, path)
    assert f"SHA-256 {hashlib.sha256(server.content).hexdigest()}, not {SHA256}. It was removed." in str(error.value)
    assert not path.exists()
    assert not part_of(path).exists()


def test_content_of_another_size(server: Server, checkpoint: sam.Checkpoint, path: Path) -> None:
    server.content = b"<html>Please log in</html>"
    with pytest.raises(InputError, match="offers 26 bytes, not 524,288"):
        download(checkpoint, path)


def test_content_without_end(server: Server, checkpoint: sam.Checkpoint, path: Path) -> None:
    """Not more than the file's size is written to disk."""
    server.content, server.length = CONTENT + CONTENT, False
    server.ranges = False
    download(checkpoint, path)
    assert_downloaded(path)


def test_not_found(server: Server, checkpoint: sam.Checkpoint, path: Path) -> None:
    server.status = 404
    with pytest.raises(InputError, match=r"sam\.pth: HTTP 404 Not Found\.\nCheck the address and the network\."):
        download(checkpoint, path)


def test_busy_server(server: Server, checkpoint: sam.Checkpoint, path: Path) -> None:
    server.status = 503
    with pytest.raises(InputError, match=r"HTTP 503 Service Unavailable \(after 5 attempts\)"):
        download(checkpoint, path)


def test_silent_server(server: Server, checkpoint: sam.Checkpoint, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", (1, 0.05))
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    server.silence = 0.3
    with pytest.raises(InputError, match=r"no answer within 0\.05 s \(after 2 attempts\)"):
        download(checkpoint, path)


def test_no_server(checkpoint: sam.Checkpoint, path: Path) -> None:
    with pytest.raises(InputError, match=r"Connection refused \(after 5 attempts\)"):
        download(checkpoint, path, url="http://127.0.0.1:1/sam.pth")


@pytest.mark.parametrize("url", ["sam.pth", "ftp://127.0.0.1/sam.pth"])
def test_no_address(checkpoint: sam.Checkpoint, path: Path, url: str) -> None:
    with pytest.raises(InputError, match=r"Check the address"):
        download(checkpoint, path, url=url)


def test_no_space(checkpoint: sam.Checkpoint, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(InputError, match="has 0 MB free; 1 are needed"):
        download(checkpoint, path)


def test_disk_that_fills_up(checkpoint: sam.Checkpoint, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "sync_file", full)
    with pytest.raises(InputError, match=r"sam\.pth cannot be written: No space left on device"):
        download(checkpoint, path)


def test_folder_that_cannot_be_made(checkpoint: sam.Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written: Not a directory"):
        download(checkpoint, tmp_path / "file" / "folder" / "sam.pth")


def test_two_downloads(checkpoint: sam.Checkpoint, path: Path) -> None:
    path.parent.mkdir()
    with FileLock(f"{part_of(path)}.lock"), pytest.raises(InputError, match="another process is downloading"):
        download(checkpoint, path)


@pytest.fixture
def command_line(
    checkpoint: sam.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Run ``nnunet_ext weights ...`` with an empty cache: exit code, output, errors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(sam.VARIABLE, raising=False)
    monkeypatch.setitem(sam.CHECKPOINTS, "vit_b", checkpoint)

    def run(*arguments: str) -> tuple[int, str, str]:
        return main(["weights", *arguments]), *capsys.readouterr()

    return run


def test_list(command_line, tmp_path: Path) -> None:
    folder = tmp_path / "nnunet_ext"
    for arguments in ((), ("list",)):
        code, out, _ = command_line(*arguments)
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == list(sam.CHECKPOINTS)
        assert out.count("not here") == 3
        assert f"1,250 MB  not here      {folder / 'sam_vit_l_0b3195.pth'}" in out
    folder.mkdir()
    (folder / "sam.pth.part").write_bytes(CONTENT[: len(CONTENT) // 4])
    assert "25% here" in command_line()[1]
    (folder / "sam.pth").write_bytes(CONTENT)
    assert " here " in command_line()[1].splitlines()[0]
    (folder / "sam.pth").write_bytes(b"short")
    assert "wrong size" in command_line()[1].splitlines()[0]


def test_the_variable_comes_first(command_line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sam.VARIABLE, str(tmp_path / "mine.pth"))
    assert command_line("path")[1] == f"{tmp_path / 'mine.pth'}\n"
    assert command_line("list")[1].startswith(f"{sam.VARIABLE}={tmp_path / 'mine.pth'} takes the place of the cache")
    monkeypatch.setenv(sam.VARIABLE, sam.RANDOM)
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
    assert sam.require(sam.CHECKPOINTS["vit_b"]) == path


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
        sam.require(sam.CHECKPOINTS["vit_b"])
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
    assert str(sam.problem(file, sam.VIT_L)).endswith(f"not {sam.VIT_L.sha256}; it is the checkpoint of vit_b")


def test_no_file_needed_for_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sam.VARIABLE, sam.RANDOM)
    assert sam.require() is None
