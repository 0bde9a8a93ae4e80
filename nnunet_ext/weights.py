"""Pretrained weights: where SAM's checkpoints are, whether they are the right ones, and how to get and read them.

The ultrasound trainers start from them, or from another file that fits, which the user names. torch is imported only
where tensors are read, and pooch only for a download.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nnunet_ext.common.environment import SAM_CHECKPOINT
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import PARTIAL, is_special, sha256, sync_file, sync_folder
from nnunet_ext.common.text import some

if TYPE_CHECKING:
    import torch

RANDOM = "random"  # as the value of the variable: go without


class Checkpoint(NamedTuple):
    """One published file; `size` is in bytes."""

    name: str  # of the image encoder
    url: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]


CHECKPOINTS = {
    name: Checkpoint(name, f"https://dl.fbaipublicfiles.com/segment_anything/sam_{name}_{digits}.pth", size, sha256)
    for name, digits, size, sha256 in (
        ("vit_b", "01ec64", 375_042_383, "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
        ("vit_l", "0b3195", 1_249_524_607, "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
        ("vit_h", "4b8939", 2_564_550_879, "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
    )
}
DEFAULT = "vit_b"


def location(checkpoint: Checkpoint) -> Path | None:
    """Return where a checkpoint is expected: `NNUNET_EXT_SAM_CHECKPOINT`, else the cache; None for ``random``.

    The file need not exist.
    """
    if path := os.environ.get(SAM_CHECKPOINT):
        return None if path == RANDOM else Path(path).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "nnunet_ext" / checkpoint.file


def is_own(path: Path, checkpoint: Checkpoint) -> bool:
    """Return whether a file is one of the user's own, which does not claim to be the official one."""
    return bool(os.environ.get(SAM_CHECKPOINT)) and path.name != checkpoint.file


def require(checkpoint: Checkpoint) -> Path | None:
    """Return the checkpoint's file, verified unless it is the user's own (`is_own`); None for ``random``.

    Raises:
        InputError: there is none, or it claims to be the official one and is not.
    """
    path = location(checkpoint)
    if path is None or (path.exists() and is_own(path, checkpoint)):
        return path
    if fault := problem(path, checkpoint):
        raise InputError(f"{fault}.", hint=hint(path, checkpoint))
    return path


def problem(path: Path, checkpoint: Checkpoint) -> str | None:
    """Return what is wrong with a checkpoint file; None where it is the official one, byte for byte."""
    try:
        if not path.exists():
            return f"{path} does not exist"
        size, digest = path.stat().st_size, sha256(path)
    except OSError as e:
        return f"{path} cannot be read: {e.strerror}"
    if digest == checkpoint.sha256:
        return None
    other = next((f"; it is the checkpoint of {c.name}" for c in CHECKPOINTS.values() if c.sha256 == digest), "")
    bytes_ = f"{size:,} bytes, not {checkpoint.size:,}, and " if size != checkpoint.size else ""
    return f"{path} has {bytes_}SHA-256 {digest}, not {checkpoint.sha256}{other}"


def hint(path: Path, checkpoint: Checkpoint) -> str:
    """Say what to do about a missing or wrong file; nothing that would overwrite a file of the user's own."""
    if os.environ.get(SAM_CHECKPOINT) and path.exists():
        return f"Unset {SAM_CHECKPOINT}, or let it name the official file ({checkpoint.url})."
    command = f"nnunet_ext weights download {checkpoint.name}{' --overwrite' if path.exists() else ''}"
    return f"Run: {command} (or download {checkpoint.url} and put it there)."


ATTEMPTS = 3
PAUSE = 2.0  # seconds before the second attempt, doubled for the third
TIMEOUT = (10.0, 60.0)  # seconds to connect, and without a byte
BLOCK = 1 << 18  # bytes
BUSY = {408, 429, 500, 502, 503, 504}  # HTTP statuses that may pass


def download(
    checkpoint: Checkpoint, path: Path, *, url: str | None = None, track: Callable[[int], object] = lambda done: None
) -> None:
    """Fetch a checkpoint to `path`, which is replaced once the file is complete and verified.

    Meanwhile the file grows in a hidden folder of its own, which the next download removes if this one is killed.

    Args:
        checkpoint: what to fetch.
        path: the file to write.
        url: a mirror of `checkpoint.url`.
        track: called now and then with the number of bytes that have come.

    Raises:
        InputError: no connection, no such file, wrong content, or nowhere to write; nothing wrong is kept.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(f"{path}.lock", timeout=0)
    folder = path.with_name(f".{path.name}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                fetched = _fetch(checkpoint, folder, url or checkpoint.url, track)
                sync_file(fetched)
                fetched.replace(path)
                sync_folder(path.parent)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout as e:
        raise InputError(f"{path}: another process is downloading it.", hint="Wait for it to end.") from e
    except OSError as e:
        raise InputError(
            f"{path} cannot be written: {e.strerror or e}.", hint="Choose another place, or make room there."
        ) from e


def _fetch(checkpoint: Checkpoint, folder: Path, url: str, track: Callable[[int], object]) -> Path:
    """Have pooch download and verify a checkpoint in `folder`, again where a network's fault may pass."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    free = shutil.disk_usage(folder.parent).free
    if free < checkpoint.size:
        raise InputError(f"{folder.parent} has {free / 1e6:,.0f} MB free; {checkpoint.size / 1e6:,.0f} are needed.")

    def downloader(address: str, file: str, _pooch: object) -> None:
        watch = _Watch(Path(file), address, checkpoint.size, track)
        headers = {"Accept-Encoding": "identity"}
        get = pooch.HTTPDownloader(progressbar=watch, chunk_size=BLOCK, timeout=TIMEOUT, headers=headers)
        get(address, file, None)

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return Path(pooch.retrieve(url, checkpoint.sha256, checkpoint.file, folder, downloader=downloader))
        except InputError:
            raise
        except OSError as e:  # all that the network raises, and the file system
            if not hasattr(e, "response"):  # as the errors of requests, which pooch downloads with, have
                raise
            may_pass = not isinstance(e, ValueError) and (e.response is None or e.response.status_code in BUSY)
            if not may_pass or attempt == ATTEMPTS:
                after = f" (after {ATTEMPTS} attempts)" if may_pass else ""
                raise InputError(f"{url}: {_reason(e)}{after}.", hint="Check the address and the network.") from e
        except ValueError as e:
            raise InputError(
                f"{url}: {e}",
                hint="A mirror or a proxy sent something else than was published: try another one.",
            ) from e
        time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


class _Watch:
    """Takes the place of pooch's progress bar and stops a download as soon as it cannot be the file."""

    def __init__(self, file: Path, url: str, size: int, track: Callable[[int], object]) -> None:
        self.file, self.url, self.size, self.track = file, url, size, track
        self.total = 0  # pooch sets it to what the server says, or to 0

    def update(self, _count: int) -> None:
        """Look how much is there: pooch counts whole blocks, also where a server sends smaller ones."""
        done = self.file.stat().st_size
        if self.total not in (0, self.size) or done > self.size:
            offered = f"{self.total:,}" if self.total else f"more than {self.size:,}"
            raise InputError(f"{self.url} offers {offered} bytes, not {self.size:,}.", hint="Check the address.")
        self.track(done)

    def reset(self) -> None:
        """Do nothing: there is no count."""

    def close(self) -> None:
        """Do nothing: whoever is tracking has a bar to close."""


def _reason(error: Exception) -> str:
    """Return one line on a network's fault, without nested representations."""
    if (response := getattr(error, "response", None)) is not None and response.status_code >= 400:
        return f"HTTP {response.status_code} {response.reason}"
    text = str(error)
    if "timed out" in text:
        return f"no answer within {TIMEOUT[1]:g} s"
    if "IncompleteRead" in text:
        return "the connection was closed early"
    return text.rsplit(": ", 1)[-1].rstrip("\"'). ") or type(error).__name__


Source = str | Path | Mapping[str, Any]
WRAPPERS = ("model", "state_dict")
PARALLEL = "module."  # what torch's (Distributed)DataParallel puts before every key


def read_state_dict(source: Source) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint by name, on the CPU, without running anything that is in a file.

    Takes a bare state dict or a training checkpoint that holds one as ``model`` or ``state_dict``, saved from a bare
    or a parallel module. Files of torch 1.6 and newer are mapped into memory, not copied: keep the file as it is while
    the tensors are in use.

    Args:
        source: a file, or its content.

    Raises:
        InputError: no file, no torch file, a truncated one, one with other objects than tensors and plain data, no
            state dict in it, sparse or quantised tensors, or numbers that are not finite.
    """
    import torch

    content = source if isinstance(source, Mapping) else _load(Path(source))
    if isinstance(content, Mapping):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    name = name_of(source)
    hint = f"A bare state dict is needed, or one under {' or '.join(map(repr, WRAPPERS))}."
    if not isinstance(content, Mapping) or not content:
        found = "an empty dict" if content == {} else f"a {type(content).__name__}"
        raise InputError(f"{name} holds no state dict but {found}.", hint=hint)
    for key, value in content.items():
        if not isinstance(key, str):
            raise InputError(f"{name} holds no state dict: its key {key!r} is not a name.", hint=hint)
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{name} holds no state dict: {key!r} is not a tensor but {value!r:.40}.", hint=hint)
    if odd := [key for key, value in content.items() if value.layout != torch.strided or value.is_quantized]:
        raise InputError(f"{name}: {some(odd)} are sparse or quantised.", hint="Save them as plain tensors.")
    if odd := [key for key, tensor in content.items() if tensor.is_complex() or tensor.is_meta]:
        raise InputError(f"{name}: {some(odd)} are complex, or without values.", hint=hint)
    if broken := [key for key, tensor in content.items() if not _finite(tensor)]:
        raise InputError(
            f"{name}: NaN or infinite numbers in {some(broken)}.",
            hint="The training that saved it had diverged; take an earlier checkpoint.",
        )
    parallel = all(key.startswith(PARALLEL) for key in content)
    return {key.removeprefix(PARALLEL) if parallel else key: tensor for key, tensor in content.items()}


def _finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    return bool((tensor.float() if tensor.itemsize < 2 else tensor).isfinite().all())  # of 8 bits torch cannot tell


def name_of(source: Source) -> str:
    """Return what a message calls the source of tensors."""
    return "the state dict" if isinstance(source, Mapping) else str(source)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of a training by nnU-Net, on the CPU, without running anything that is in the file.

    Raises:
        InputError: it cannot be read, is not such a checkpoint, or holds other objects than tensors, numbers and plain
            data.
    """
    import numpy as np
    import torch

    make_number: Any = np.float32(0).__reduce__()[0]  # nnU-Net's logging has numpy's numbers, as harmless as Python's
    types = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")]
    with torch.serialization.safe_globals(
        [make_number, (make_number, "numpy.core.multiarray.scalar"), np.dtype, *types]  # its name before numpy 2
    ):
        content = _load(Path(path))
    if not isinstance(content, dict) or not {"network_weights", "trainer_name", "init_args"} <= content.keys():
        raise InputError(f"{path} is not a checkpoint of a training by nnU-Net.", hint="Name its fold and checkpoint.")
    return content


def _load(path: Path) -> Any:
    import torch

    if is_special(path):
        raise InputError(f"{path} is not a file, but a pipe or a device.")
    try:
        path.open("rb").close()  # what the system says about the file; later errors are about its content
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}.") from e
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as e:
        if found := re.search(r"GLOBAL (\S+) was not an allowed|load unsupported GLOBAL (\S+)", str(e)):
            raise InputError(
                f"{path} holds more than tensors ({found[1] or found[2]}), and reading that can run any code: refused.",
                hint="If you trust it, load it with weights_only=False and save the state dict alone.",
            ) from e
        raise InputError(f"{path} is not a torch checkpoint.") from e
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as e:
        raise InputError(f"{path} is not a torch checkpoint, or a truncated one.", hint="Get it again.") from e
