"""Compare models as nnU-Net's own commands, job by job, here or on a SLURM cluster.

  nnunet_ext benchmark plan smoke              every job's command, as a bash script
  nnunet_ext benchmark run smoke --jobs 2      run them; the same command continues
  nnunet_ext benchmark status smoke            what is done, what runs, how far
  nnunet_ext benchmark report smoke            compare whatever is finished

The matrix is a TOML file or a preset (lits-table1, busi-table1, smoke). `run` preprocesses once, trains, predicts the
held-out cases and evaluates. A job that fails takes only those with it that need its result. Every seed has its own
nnUNet_results below --out, because nnU-Net's folders carry none.

  name = "mine"                      # letters, digits, . - _
  title = "What is compared"
  device = "cuda"                    # cuda, cpu, mps
  data = "environment"               # nnUNet_raw and nnUNet_preprocessed as exported; "own": below --out
  folds = [0]
  seeds = [0, 1, 2]                  # NNUNET_EXT_SEED; nnU-Net's own trainers take none: unseeded repeats
  notes = []                         # printed with the report
  differences = []                   # between the published figures' protocol and this one
  [budget]                           # of trainers that follow it (ours); left out: each trainer's own
  epochs = 50                        # also: iterations, val_iterations
  [[datasets]]
  id = 29                            # name = "Dataset029_LiTS" where the folder is not there yet
  test = "auto"                      # imagesTs, validation (the fold's), auto: imagesTs where labelsTs is there
  prepare = []                       # commands that make it; {root} is --out
  preprocess = true                  # false: use the plans and preprocessed data that are there
  [[rows]]                           # trainers and configurations: lists give a row each
  name = "RA-U-Net"
  trainer = "nnUNetTrainerRAUNet"    # ours come with configuration, planner, plans and checkpoint
  configuration = "2d"
  planner = "RAUNetPlanner"
  plans = "nnUNetRAUNetPlans"
  checkpoint = "checkpoint_final.pth"
  prompts = "none"                   # reference: clicks from the ground truth, kept apart from every ranking
  datasets = [29]                    # left out: all
  [[published]]
  row = "RA-U-Net"
  metrics = {dice = 0.773}
  source = "Du & Wang 2025, table 1" # also: note; dataset, where there are several
  [arguments]                        # appended to nnU-Net's commands: plan, train, predict, evaluate
  plan = "-npfp 4 -np 4"
  [environment]                      # variables of every job; [environment.train] and so on of one kind
  nnUNet_def_n_proc = 4
  [slurm]                            # partition, account, qos, constraint, gres, gpus, cpus, mem_gb, parallel,
  partition = "gpu"                  # max_timeouts, signal_delay_s, setup = ["module load ..."]
  minutes = {train = 2880}           # prepare, plan, train, predict, evaluate
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.common.errors import InputError

if TYPE_CHECKING:
    from nnunet_ext.benchmark.benchmark import Benchmark
    from nnunet_ext.benchmark.executors.local import Outcome

HELP = "compare models on datasets, folds and seeds, here or on a SLURM cluster"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command per step."""
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    plan = steps.add_parser("plan", help="print every job's command, as a bash script")
    plan.set_defaults(step_run=_plan)
    run = steps.add_parser("run", help="run whatever is not done")
    run.set_defaults(step_run=_run)
    run.add_argument("--executor", choices=("local", "slurm"), default="local", help="default: %(default)s")
    run.add_argument("--jobs", type=int, metavar="N", help="local: jobs at a time; default: one per GPU, else one")
    run.add_argument("--no-wait", action="store_true", help="slurm: submit and return; status and report tell the rest")
    status = steps.add_parser("status", help="what is done, what runs, how far")
    status.set_defaults(step_run=_status)
    report = steps.add_parser("report", help="compare whatever is finished")
    report.set_defaults(step_run=_report)
    for sub in (plan, run, status, report):
        sub.add_argument("matrix", metavar="MATRIX", help="a TOML file, or lits-table1, busi-table1, smoke")
        sub.add_argument("--out", type=Path, metavar="DIR", help="folder to work in (default: benchmark_NAME)")


def run(args: argparse.Namespace) -> int:
    """The step that was asked for."""
    if os.name != "posix":
        raise InputError("The benchmark runs on Linux and macOS.", hint="On Windows, run it in WSL.")
    from nnunet_ext.benchmark.benchmark import Benchmark

    return args.step_run(Benchmark.of(args.matrix, args.out), args)


def _plan(benchmark: Benchmark, args: argparse.Namespace) -> int:
    from nnunet_ext.benchmark.jobs import script

    print(script(benchmark.jobs, benchmark.matrix.title or benchmark.matrix.name), end="")
    return 0


def _run(benchmark: Benchmark, args: argparse.Namespace) -> int:
    from nnunet_ext.benchmark import views

    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs {args.jobs} is less than one.")
    benchmark.check_data()
    benchmark.claim_folder()
    slurm = args.executor == "slurm"
    parallel = benchmark.matrix.slurm.parallel if slurm else args.jobs or max(1, len(benchmark.devices))
    with _ended_like_interrupted(), views.view(benchmark.jobs, benchmark.store, parallel) as watch:
        if slurm:
            outcome = benchmark.run_on_slurm(watch=watch, wait=not args.no_wait)
        else:
            outcome = benchmark.run_here(parallel=parallel, watch=watch)
    return _tell(benchmark, outcome, args)


@contextlib.contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """SIGTERM is Ctrl-C: running jobs are stopped, and say so. Afterwards, and in later children, it is what it was."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _tell(benchmark: Benchmark, outcome: Outcome, args: argparse.Namespace) -> int:
    """What became of it; 1 if something failed."""
    for failure in outcome.failures:
        print(f"\nfailed: {failure.job.id}: {failure.reason}\n  log: {failure.log}", file=sys.stderr)
        for line in failure.tail().splitlines():
            print(f"  | {line}", file=sys.stderr)
    counts = ", ".join(
        f"{n} {s}" for s in ("done", "running", "waiting", "failed", "skipped") if (n := outcome.count(s))
    )
    print(f"\n{benchmark.folders.root}: {len(benchmark.jobs)} jobs, {counts}")
    where = f" --out {args.out}" if args.out else ""
    print(f"next: nnunet_ext benchmark report {args.matrix}{where}")
    return 1 if outcome.failures else 0


def _status(benchmark: Benchmark, args: argparse.Namespace) -> int:
    from nnunet_ext.benchmark import progress, views

    lines = progress.lines(benchmark.jobs, benchmark.store)
    print("\n".join(views.table(lines)))
    return 0


def _report(benchmark: Benchmark, args: argparse.Namespace) -> int:
    from nnunet_ext.benchmark import reporting
    from nnunet_ext.common.progress import progress_bar

    for line in reporting.write(benchmark, track=progress_bar):
        print(line)
    return 0
