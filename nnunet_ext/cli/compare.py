"""Compare models on the same cases: tests, intervals, ranks, and how firm all of it is.

  nnunet_ext compare RAUNet=out/raunet nnUNet=out/nnunet --report report.html
  nnunet_ext compare RAUNet=f0 RAUNet=f1 nnUNet=g0 nnUNet=g1      # folds: other cases, pooled by case
  nnunet_ext compare RAUNet=s1 RAUNet=s2 nnUNet=t1 nnUNet=t2      # repeats: the same cases, averaged by case

DIR holds metrics.json of nnunet_ext evaluate, or nnU-Net's summary.json (overlap only), or is such a file, or a trained
model's folder, whose fold_*/validation are its folds. A name given several times is one model.

Two models are compared case by case: Wilcoxon's signed-rank test with Holm's correction, and the interval that belongs
to it. Findings are about one primary metric; those by others are exploratory, and called so. Where so few cases could
not show anything, it says so. docs/statistics.md gives reasons and simulations.
Models with different prompts are compared but not ranked together. Writes comparison.json, comparison.tex and
comparison.csv (one row per model), comparison_pairs.csv and comparison_cases.csv (long, as challengeR reads it).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.common.processes import progress_bar
from nnunet_ext.metrics.definitions import DEFAULT_METRICS

HELP = "compare models on the same cases, with statistics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", type=_named, metavar="NAME=DIR", help="a model and its metrics, see above")
    parser.add_argument("--out", type=Path, default=Path("comparison"), metavar="DIR", help="default: ./%(default)s")
    parser.add_argument("--structure", nargs="+", metavar="NAME", help="labels or regions; default: all")
    parser.add_argument("--metrics", nargs="+", metavar="KEY", help=f"default: {' '.join(DEFAULT_METRICS)}")
    parser.add_argument("--primary", metavar="KEY", help="the metric that findings are about, default: dice")
    parser.add_argument("--baseline", metavar="NAME", help="compare every other model with this one only")
    parser.add_argument("--alpha", type=_alpha, default=0.05, help="level of significance, default: %(default)s")
    parser.add_argument("--report", type=Path, metavar="FILE", help="HTML report to write")
    parser.add_argument("--images", type=Path, metavar="DIR", help="images of the cases, for the report's pictures")
    parser.add_argument("--cases", nargs="+", default=(), metavar="CASE", help="cases to show in the report as well")
    parser.add_argument("--subgroups", type=Path, metavar="CSV", help="cases and their groups, for the report")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext import comparison
    from nnunet_ext.common.errors import InputError

    if args.images is not None and not args.images.is_dir():
        raise InputError(
            f"{args.images} is not a directory.", hint="Name the folder of the cases' images with --images."
        )
    if (args.cases or args.subgroups) and args.report is None:
        raise InputError("--cases and --subgroups are for the report.", hint="Name its file with --report.")
    comparison.check_folder(args.out)
    if args.report is not None:
        from nnunet_ext.report import check_file

        check_file(args.report)
    models = comparison.read_models(args.models)
    result = comparison.compare(
        models,
        structures=args.structure,
        metrics=args.metrics,
        primary=args.primary,
        baseline=args.baseline,
        alpha=args.alpha,
    )
    if args.report is not None:
        from nnunet_ext.report import extras_of

        extras = extras_of(result.cases, cases=args.cases, groups=args.subgroups)
    print(comparison.to_text(result))
    comparison.save(result, args.out)
    print(f"{args.out}: {', '.join(comparison.FILES)}")
    if args.report is not None:
        from nnunet_ext.report import build_report

        build_report(models, args.report, comparison=result, images=args.images, extras=extras, track=progress_bar)
        print(args.report)
    return 0


def _named(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not (name.strip() and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR")
    return name.strip(), Path(path)


def _alpha(text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = 0.0
    if not 0 < alpha < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return alpha
