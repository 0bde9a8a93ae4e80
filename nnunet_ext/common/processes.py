"""Work on several processor cores, and how far it is."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
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


def finished(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Generator[Result, None, None]:
    """Yield the result of every item as soon as it is there; fewer than two workers means this process, in order.

    Whatever ends the iteration early cancels the items that have not begun. Ctrl-C does not wait for the others either:
    their processes are ended, and what they were writing stays under its temporary name.

    Raises:
        InputError: a worker process was killed.
    """
    if workers < 2:
        yield from map(work, items)
        return
    import multiprocessing  # here, because command lines ask for `cpus` at their start
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed

    others = set(multiprocessing.active_children())
    # spawned, never forked: the same on every system, and safe with threads and torch
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker) as pool:
        try:
            with _interrupt_held_back():
                futures = [pool.submit(work, item) for item in items]
            for future in as_completed(futures):
                yield future.result()
        except BrokenExecutor as e:
            raise InputError(
                "A worker process was killed, perhaps for lack of memory.",
                hint="Use fewer processes.",
            ) from e
        except (KeyboardInterrupt, GeneratorExit):  # here, or where the results are used
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Generator[Result, None, None]:
    """Yield the result of every item as soon as it is there, from threads; one is used at least.

    Whatever ends the iteration early cancels the items that have not begun, and waits for the others a second at most:
    an executor's threads would keep the process alive until they are done.
    """
    from concurrent.futures import Future

    waiting, stop = iter(items), threading.Event()
    results: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()

    def run() -> None:
        for item in waiting:  # each goes to one of the threads
            if stop.is_set():
                return
            future: Future[Result] = Future()
            try:
                future.set_result(work(item))
            except Exception as e:  # noqa: BLE001  (goes to whoever uses the result)
                future.set_exception(e)
            results.put(future)

    workers = [threading.Thread(target=run, daemon=True) for _ in range(max(1, threads))]
    for worker in workers:
        worker.start()
    try:
        for _ in items:
            yield results.get().result()
    finally:
        stop.set()
        until = time.monotonic() + 1
        for worker in workers:
            worker.join(max(0, until - time.monotonic()))


@contextlib.contextmanager
def continuing() -> Iterator[None]:
    """Let Ctrl-C say that the same command continues, around work that keeps what is finished."""
    try:
        yield
    except KeyboardInterrupt as e:
        raise KeyboardInterrupt("the same command continues") from e


@contextlib.contextmanager
def single_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C end the block, and no further one disturb the tidying up, which takes no time."""
    if threading.current_thread() is not threading.main_thread():  # signals come to that one alone
        yield
        return
    former = signal.getsignal(signal.SIGINT)
    if former is not signal.default_int_handler:  # ignored, or somebody else's
        yield
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, former)


@contextlib.contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Block Ctrl-C while processes are started, for they would print it before they can leave it to this one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # goes on to children
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


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
