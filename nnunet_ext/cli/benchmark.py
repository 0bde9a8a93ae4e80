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
  primary = "dice"                   # the metric that findings are about; all others are exploratory
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
  source = "Du & Wang 2025, table 1" # also: note; structure (default: the first); dataset, where there are several
  [arguments]                        # appended to nnU-Net's commands: plan, train, predict, evaluate
  plan = "-npfp 4 -np 4"
  [environment]                      # variables of every job; [environment.train] and so on of one kind
  nnUNet_def_n_proc = 4
  [slurm]                            # partition, account, qos, constraint, gres, gpus, cpus, mem_gb, parallel,
  partition = "gpu"                  # max_timeouts, signal_delay_s, setup = ["module load ..."]
  minutes = {train = 2880}           # prepare, plan, train, predict, evaluate

`run` hands the jobs to Snakemake. Words after -- are arguments of Snakemake, and --profile is its own:
  nnunet_ext benchmark run smoke --executor slurm -- --slurm-reservation mine
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import writing_to
from nnunet_ext.common.processes import continuing, progress_bar

if TYPE_CHECKING:
    from nnunet_ext.benchmark.benchmark import Benchmark, RunResult

HELP = "compare models on datasets, folds and seeds, here or on a cluster"


class _Step(argparse.ArgumentParser):
    """Keeps what stands after ``--``, which argparse would try to understand, as `passed`."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = list(args)
        cut = words.index("--") if "--" in words else len(words)
        namespace, rest = super().parse_known_args(words[:cut], namespace)
        namespace.passed = words[cut + 1 :]
        return namespace, rest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True, parser_class=_Step)
    plan = steps.add_parser("plan", help="print every job's command, as a bash script")
    plan.add_argument(
        "--snakefile", type=Path, metavar="FILE", help="write a Snakemake workflow instead (and FILE.json)"
    )
    run = steps.add_parser("run", help="run whatever is not done", epilog="Words after -- are arguments of Snakemake.")
    run.add_argument("--executor", metavar="NAME", help="local (default), slurm, or another that Snakemake has")
    run.add_argument("--jobs", type=int, metavar="N", help="jobs at a time; default: one per GPU, else one")
    run.add_argument("--profile", metavar="DIR", help="profile of Snakemake, for instance of a cluster")
    run.add_argument("--no-wait", action="store_true", help="go on in the background; status and report tell the rest")
    status = steps.add_parser("status", help="what is done, what runs, how far")
    report = steps.add_parser("report", help="compare whatever is finished")
    for sub, step in ((plan, _plan), (run, _run), (status, _status), (report, _report)):
        sub.add_argument("matrix", metavar="MATRIX", help="a TOML file, or lits-table1, busi-table1, smoke")
        sub.add_argument("--out", type=Path, metavar="DIR", help="folder to work in (default: benchmark_NAME)")
        sub.set_defaults(step_run=step)


def run(args: argparse.Namespace) -> int:
    if os.name != "posix":
        raise InputError("The benchmark runs on Linux and macOS.", hint="On Windows, run it in WSL.")
    if args.passed and args.step != "run":
        raise InputError(f"benchmark {args.step} passes nothing on to Snakemake: {' '.join(args.passed)}")
    from nnunet_ext.benchmark.benchmark import Benchmark
    from nnunet_ext.benchmark.jobs import FULL

    benchmark = Benchmark.of(args.matrix, args.out)
    with writing_to(benchmark.folders.root, FULL):
        return args.step_run(benchmark, args)


def _plan(benchmark: Benchmark, args: argparse.Namespace) -> int:
    benchmark.check_folds()
    if args.snakefile:
        from nnunet_ext.benchmark import workflow

        workflow.check_file(args.snakefile)
        workflow.write(args.snakefile, benchmark.jobs, benchmark.matrix, "slurm")
        print(f"Its jobs are in {args.snakefile}.json. Run it with: snakemake --snakefile {args.snakefile} --cores N")
        return 0
    from nnunet_ext.benchmark.jobs import script

    print(script(benchmark.jobs, benchmark.matrix.title or benchmark.matrix.name), end="")
    return 0


def _run(benchmark: Benchmark, args: argparse.Namespace) -> int:
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs {args.jobs} is less than one.")
    benchmark.check_data()
    benchmark.claim_folder()
    if args.no_wait:
        return _run_in_background(benchmark, args)
    profile = ["--profile", args.profile] if args.profile else []
    executor = args.executor or ("" if profile else "local")
    with continuing(), _ended_like_interrupted():
        result = benchmark.run(executor=executor, parallel=args.jobs, passed=[*profile, *args.passed])
    return _tell(benchmark, result, args)


def _run_in_background(benchmark: Benchmark, args: argparse.Namespace) -> int:
    from nnunet_ext.benchmark import workflow

    with workflow.claimed(benchmark.folders.root):
        pass  # nothing runs here yet
    words = ["benchmark", "run", args.matrix]
    for option in ("out", "executor", "jobs", "profile"):
        value = getattr(args, option)
        words += [f"--{option}", str(value)] if value is not None else []
    log = benchmark.folders.root / "logs" / "run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nnunet_ext", *words, *(["--", *args.passed] if args.passed else [])],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    print(f"process {process.pid} goes on; what it says: {log}")
    return 0


@contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """Make SIGTERM and a closed terminal Ctrl-C, so that running jobs are stopped; later they are what they were."""
    former = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _tell(benchmark: Benchmark, result: RunResult, args: argparse.Namespace) -> int:
    """Say what became of it; returns 1 if something failed."""
    from nnunet_ext.benchmark.status import STATES

    print(result.said, end="")
    for failure in result.failures:
        print(f"\nfailed: {failure.job_id}: {failure.reason}\n  log: {failure.log}", file=sys.stderr)
        for line in failure.tail():
            print(f"  | {line}", file=sys.stderr)
    states = [line.status for line in result.lines]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    print(f"\n{benchmark.folders.root}: {len(states)} jobs, {counts}")
    where = f" --out {args.out}" if args.out else ""
    print(f"next: nnunet_ext benchmark report {args.matrix}{where}")
    return 1 if result.failures else 0


def _status(benchmark: Benchmark, args: argparse.Namespace) -> int:
    from nnunet_ext.benchmark import status, workflow

    lines = status.lines(benchmark.jobs, benchmark.store, workflow.queue(benchmark.folders.root))
    width = max(len(line.job.id) for line in lines)
    print("\n".join([*(line.text(width) for line in lines), status.summary(lines)]))
    return 0


def _report(benchmark: Benchmark, args: argparse.Namespace) -> int:
    from nnunet_ext.benchmark import reporting

    for line in reporting.write(benchmark, track=progress_bar):
        print(line)
    return 0
