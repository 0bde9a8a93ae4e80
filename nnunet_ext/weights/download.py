"""Download a checkpoint: resumable, verified, and under its name only when it is right.

Built on requests, which nnU-Net brings along: libraries for downloads either begin anew after an interruption or would
bring an asynchronous stack for one file.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import requests
from filelock import FileLock, Timeout

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion.raw_folder import sync_file, sync_folder
from nnunet_ext.weights.sam import Checkpoint, sha256

ATTEMPTS = 5  # in a row that bring no byte
PAUSE = 1.0  # seconds before the second attempt, doubled for each further one
TIMEOUT = (10.0, 60.0)  # seconds to connect, and without a byte
CUT = "the connection was closed early"
BUSY = {408, 429, 500, 502, 503, 504}  # statuses that may pass

Track = Callable[[int], object]


def download(checkpoint: Checkpoint, path: Path, *, url: str | None = None, track: Track = lambda done: None) -> None:
    """Fetch a checkpoint to `path`, which is replaced once the file is complete and verified.

    An interrupted download stays as ``NAME.part`` and is continued, on servers that can; if what was put together that
    way has the wrong checksum, the file is fetched once more from the beginning.

    Args:
        url: a mirror of `checkpoint.url`.
        track: told how many bytes there are, now and then.

    Raises:
        InputError: no connection, no such file, wrong content, or nowhere to write; nothing wrong is kept.
    """
    url = url or checkpoint.url
    part = path.with_name(f"{path.name}.part")
    lock = FileLock(f"{part}.lock", timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock:
            if _size(part) > checkpoint.size:
                part.unlink()
            for continued in (_size(part) > 0, False):
                _fetch(url, part, checkpoint.size, track)
                if (digest := sha256(part)) == checkpoint.sha256:
                    break
                part.unlink()
                if not continued:
                    raise InputError(
                        f"What {url} sent has SHA-256 {digest}, not {checkpoint.sha256}. It was removed.",
                        hint="A mirror or a proxy sent something else than was published: try another one.",
                    )
            sync_file(part)
            part.replace(path)
            sync_folder(path.parent)
            Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout as e:
        raise InputError(f"{path}: another process is downloading it.", hint="Wait for it to end.") from e
    except OSError as e:
        raise InputError(
            f"{path} cannot be written: {e.strerror or e}.", hint="Choose another place, or make room there."
        ) from e


def _fetch(url: str, part: Path, size: int, track: Track) -> None:
    """Ask for what is missing until nothing is."""
    failures = 0
    while (before := _size(part)) < size:
        free = shutil.disk_usage(part.parent).free
        if free < size - before:
            raise InputError(f"{part.parent} has {free / 1e6:,.0f} MB free; {(size - before) / 1e6:,.0f} are needed.")
        try:
            _append(url, part, size, track)
            reason = CUT
        except requests.RequestException as e:
            if not _may_pass(e):
                raise InputError(f"{url}: {_reason(e)}.", hint="Check the address and the network.") from e
            reason = _reason(e)
        failures = 0 if _size(part) > before else failures + 1
        if failures == ATTEMPTS:
            raise InputError(
                f"{url}: {reason} (after {ATTEMPTS} attempts).",
                hint=f"The same command continues after {_size(part):,} of {size:,} bytes.",
            )
        if _size(part) < size:
            time.sleep(PAUSE * 2 ** max(0, failures - 1))


def _append(url: str, part: Path, size: int, track: Track) -> None:
    """One request for the rest of the file."""
    done = _size(part)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if done and response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()
            return
        response.raise_for_status()
        content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if response.status_code == requests.codes.partial_content and content_range:
            done, total = map(int, content_range.groups())
        else:  # a server that knows no ranges sends everything
            done, total = 0, int(response.headers.get("Content-Length", size))
        if total != size:
            raise InputError(f"{url} offers {total:,} bytes, not {size:,}.", hint="Check the address.")
        with part.open("r+b" if part.exists() else "wb") as f:
            f.seek(done)
            f.truncate()
            for block in response.iter_content(1 << 16):
                f.write(block[: size - done])
                done += len(block)
                track(min(done, size))
                if done >= size:
                    break


def _may_pass(error: requests.RequestException) -> bool:
    """Whether asking again may help."""
    if isinstance(error, requests.HTTPError):
        return error.response.status_code in BUSY
    cut = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, cut) and not isinstance(error, requests.exceptions.SSLError)


def _reason(error: requests.RequestException) -> str:
    """One line, without the library's nested representations."""
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT[1]:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return CUT
    return str(error).rsplit(": ", 1)[-1].rstrip("\"'). ") or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
