"""Work on several processor cores."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import finished, in_threads, is_running

LONG = 600  # seconds that nobody waits for


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_result_comes_once(workers: int) -> None:
    results = list(finished(operator.neg, range(20), workers))
    assert sorted(results) == sorted(range(-19, 1))
    assert workers > 1 or results == [-n for n in range(20)]


def test_an_error_ends_the_work() -> None:
    with pytest.raises(TypeError):
        list(finished(operator.neg, [1, "two", *range(1000)], 2))


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(InputError, match="A worker process was killed, perhaps for lack of memory"):
        list(finished(os._exit, [9], 2))


def test_threads_yield_every_result_once_and_pass_errors_on() -> None:
    assert sorted(in_threads(operator.neg, range(20), 3)) == sorted(range(-19, 1))
    assert list(in_threads(operator.neg, [1], 0)) == [-1]
    with pytest.raises(TypeError):
        list(in_threads(operator.neg, [1, "two", *range(1000)], 2))


def interrupted(script: str, *, times: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a script in a process group of its own, press Ctrl-C when it has said "ready", and wait for its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run in background
    )
    assert process.stdout
    for _ in range(times):
        while "ready" not in process.stdout.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
    try:
        out, err = process.communicate(timeout=LONG / 5)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


PREAMBLE = """
    import pathlib, sys, time
    from nnunet_ext import cli
    from nnunet_ext.cli import list_
    from nnunet_ext.common.processes import continuing, finished, in_threads

"""


@pytest.mark.parametrize(
    "of", ["finished(time.sleep, [0, *[LONG] * 9], 2)", "in_threads(time.sleep, [0, *[LONG] * 9], 2)"]
)
@pytest.mark.parametrize("interrupted_at", ["waiting", "work"])
def test_ctrl_c_waits_for_nothing(of: str, interrupted_at: str) -> None:
    """Whether it comes while results are waited for or while they are used."""
    result = interrupted(
        PREAMBLE
        + f"""
    LONG = {LONG}

    def run(args):
        for _ in {of}:
            print("ready", flush=True)
            if {interrupted_at == "work"}:
                time.sleep(LONG)

    list_.run = run
    sys.exit(cli.main(["list"]))
    """
    )
    assert (result.returncode, result.stderr) == (130, "interrupted\n")


def test_a_second_ctrl_c_disturbs_nothing() -> None:
    result = interrupted(
        PREAMBLE
        + f"""
    def run(args):
        try:
            with continuing():
                print("ready", flush=True)
                time.sleep({LONG})
        finally:
            print("ready", flush=True)
            time.sleep(1)
            print("tidy", flush=True)

    list_.run = run
    sys.exit(cli.main(["list"]))
    """,
        times=2,
    )
    assert (result.returncode, result.stdout, result.stderr) == (
        130,
        "tidy\n",
        "interrupted; the same command continues\n",
    )


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_process_that_only_waits_to_be_reaped_is_not_running() -> None:
    assert is_running(os.getpid())
    child = subprocess.Popen(["true"])
    while is_running(child.pid):
        time.sleep(0.01)
    child.wait()
    assert not is_running(child.pid)
