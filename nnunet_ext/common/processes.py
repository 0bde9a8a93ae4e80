"""Work on several processor cores."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nnunet_ext.common.errors import InputError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

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
    from concurrent.futures import BrokenExecutor, as_completed

    with spawned_pool(workers) as pool:
        try:
            for future in as_completed([pool.submit(work, item) for item in items]):
                yield future.result()
        except BrokenExecutor as e:
            raise InputError(
                "A worker process was killed, perhaps for lack of memory.", hint="Use fewer processes."
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


def spawned_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of spawned workers, never forked: the same on every system, and safe with threads and torch."""
    import multiprocessing  # here, because command lines ask for `cpus` at their start
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it: a killed one cannot stop its workers, which would wait for ever."""
    from multiprocessing import parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        if parent := parent_process():
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
