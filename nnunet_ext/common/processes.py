"""Work on several processor cores, and how far it is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from nnunet_ext.common.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def cpus() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_running(process: int) -> bool:
    """Return whether a process of this number runs on this machine; True where that cannot be found out.

    One that has ended and only waits to be reaped does not run.
    """
    if os.name != "posix":
        return True  # signal 0 would end the process there
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's, or no /proc
        return True


def finished(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Yield the result of every item as soon as it is there; fewer than two workers means this process, in order.

    Whatever ends the iteration early (an error, Ctrl-C) cancels the items that have not begun.

    Raises:
        InputError: a worker process was killed.
    """
    if workers < 2:
        yield from map(work, items)
        return
    import multiprocessing  # here, because command lines ask for `cpus` at their start
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed

    # spawned, never forked: the same on every system, and safe with threads and torch
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker) as pool:
        try:
            for future in as_completed([pool.submit(work, item) for item in items]):
                yield future.result()
        except BrokenExecutor as e:
            raise InputError(
                "A worker process was killed, perhaps for lack of memory.",
                hint="Use fewer processes.",
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it: a killed one cannot stop its workers, which would wait for ever."""
    from multiprocessing import parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        if parent := parent_process():
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Track(Protocol):
    """Hands items on one by one and may draw a bar over `total` of them; a library call does without."""

    def __call__(self, items: Iterable[Item], *, total: int, what: str, unit: str = "file") -> Iterable[Item]: ...


def untracked(items: Iterable[Item], *, total: int, what: str, unit: str = "file") -> Iterable[Item]:
    """Hand the items on and draw nothing."""
    return items


def progress_bar(items: Iterable[Item], *, total: int, what: str, unit: str = "file") -> Iterable[Item]:
    """Hand the items on with a bar on standard error, where that is a terminal and there is anything to do."""
    from tqdm import tqdm

    bar: Iterable[Item] = tqdm(items, total=total, desc=what, unit=unit, disable=None if total else True)
    return bar
