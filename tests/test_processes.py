"""Work on several processor cores."""

from __future__ import annotations

import operator
import os
import subprocess
import time
from pathlib import Path

import pytest

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import finished, is_running


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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_process_that_only_waits_to_be_reaped_is_not_running() -> None:
    assert is_running(os.getpid())
    child = subprocess.Popen(["true"])
    while is_running(child.pid):
        time.sleep(0.01)
    child.wait()
    assert not is_running(child.pid)
