"""A real SLURM of one node, brought up and down by root.

Debian's slurm-wlm and munge are enough; keys, sockets, ports, state and logs are all the cluster's own, so that it
neither needs nor disturbs a configured one. Without cgroups, processes are followed by their parents.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "squeue", "scancel")

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0,defer_batch
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
KillWait=5
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 Sockets=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def reason_to_skip() -> str:
    """Why there can be no cluster here; "" if there can."""
    lacking = [p for p in PROGRAMS if _find(p) is None]
    if lacking:
        return f"SLURM is not installed (no {', '.join(lacking)}): apt-get install slurm-wlm munge"
    return "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "slurmd starts jobs as root only"


class Cluster:
    """Daemons and commands with a configuration of their own, in a folder with a short path: sockets lie in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Snakemake's job steps drop SLURM_CONF, so that srun must be told once more
        path = f"{folder}/bin:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        self._daemons: list[subprocess.Popen] = []

    def output(self, name: str, *arguments: str) -> str:
        """What one of SLURM's commands prints."""
        words = [_find(name), *arguments]
        environment = {**os.environ, **self.environment}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=30).stdout

    @contextlib.contextmanager
    def up(self, timeout: float = 30) -> Iterator[Cluster]:
        """All daemons, from when the node takes jobs.

        Raises:
            RuntimeError: it does not within `timeout` seconds; with the end of every log.
        """
        host = self._configure()
        files = {"key-file": self.folder / "munge.key", "socket": self.folder / "munge.socket"}
        files |= {f"{n}-file": self.folder / f"munge.{n}" for n in ("pid", "log", "seed")}
        try:
            self._daemon("munged", "--foreground", "--force", *(f"--{k}={v}" for k, v in files.items()))
            self._wait((self.folder / "munge.socket").exists, timeout)
            self._daemon("slurmctld", "-D")
            self._daemon("slurmd", "-D", "-N", host)
            self._wait(lambda: self.output("sinfo", "-h", "-o", "%T").strip() == "idle", timeout)
            yield self
        finally:
            self.output("scancel", "--user=root")
            for daemon in reversed(self._daemons):
                daemon.terminate()
            for daemon in reversed(self._daemons):
                try:
                    daemon.wait(timeout=3)
                except subprocess.TimeoutExpired:
                    daemon.kill()

    def _configure(self) -> str:
        """Write all files; returns the name of the node."""
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        srun, key = self.folder / "bin" / "srun", self.folder / "munge.key"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {_find("srun")} "$@"\n')
        srun.chmod(0o755)
        self.folder.chmod(0o755)
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        host = socket.gethostname().split(".")[0]
        text = CONFIGURATION.format(folder=self.folder, host=host, ports=_free_ports(2))
        (self.folder / "slurm.conf").write_text(text)
        return host

    def _daemon(self, name: str, *arguments: str) -> None:
        words, environment = [_find(name), *arguments], {**os.environ, **self.environment}
        with (self.folder / f"{name}.out").open("w") as out:
            self._daemons.append(subprocess.Popen(words, env=environment, stdout=out, stderr=out, cwd=self.folder))

    def _wait(self, ready: Callable[[], bool], timeout: float) -> None:
        end = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > end or any(d.poll() is not None for d in self._daemons):
                tails = [f"{f.name}:\n{f.read_text()[-800:]}" for f in sorted(self.folder.glob("*.[lo][ou][gt]"))]
                raise RuntimeError("SLURM does not come up.\n" + "\n".join(tails))
            time.sleep(0.1)


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin:/usr/local/sbin")


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
