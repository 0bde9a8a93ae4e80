"""Measure predictions against references: overlap, distances, lesions, volumes, per case and summed up.

  nnunet_ext evaluate --pred predictions --ref labelsTs --report report.html
  nnunet_ext evaluate -m MODEL_FOLDER -f 0 1 2 3 4        the final validation of trained folds, pooled

Labels, regions and the file ending come from dataset.json. Writes metrics.csv (one row per case and structure) and
metrics.json (nnU-Net's summary.json with more in it, and all sums). Distances and volumes are in mm and ml where files
have a spacing, in pixels for pictures; the columns' names say it. What is undefined (a distance to an empty mask, say)
is left out of means and counted. Nothing is written if anything is wrong with any case.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import cpus, progress_bar
from nnunet_ext.common.text import some
from nnunet_ext.metrics import LESION_IOU
from nnunet_ext.metrics.definitions import TOLERANCE

if TYPE_CHECKING:
    from nnunet_ext.evaluation.aggregate import StructureSummary, Summary
    from nnunet_ext.evaluation.evaluation import Evaluation
    from nnunet_ext.metrics.definitions import Metric, Units

HELP = "measure predictions against references"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    folders = parser.add_argument_group("two folders")
    folders.add_argument("--pred", type=Path, metavar="DIR", help="predictions")
    folders.add_argument("--ref", type=Path, metavar="DIR", help="references, files of the same names")
    folders.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="default: next to the predictions, the references, or in the folder above",
    )
    parser.add_argument(
        "--labels-from",
        choices=("predictions", "references"),
        help="whose dataset.json says what labels mean, where the two contradict each other",
    )
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument(
        "--prompts",
        choices=("none", "file", "reference", "session"),
        help="where clicks came from, if the predictions' files do not say it",
    )
    prompts.add_argument(
        "--members", nargs="+", type=Path, metavar="DIR", help="of an ensemble, whose prompts were those of all of them"
    )
    model = parser.add_argument_group("a trained model's validation")
    model.add_argument("-m", type=Path, metavar="DIR", help="model: TRAINER__PLANS__CONFIGURATION")
    model.add_argument("-f", nargs="+", metavar="FOLD", help="folds whose validation counts")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for metrics.csv and metrics.json; default: that of the predictions"
    )
    parser.add_argument("--name", help="of the model, for tables; default: its trainer, else the folder")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, metavar="T", help="of NSD, in mm or pixels (default: %(default)g)"
    )
    parser.add_argument(
        "--lesion-iou",
        type=float,
        default=LESION_IOU,
        metavar="T",
        help="from which a predicted and a reference lesion are taken for the same (default: %(default)g)",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write an HTML report as well")
    parser.add_argument("--images", type=Path, metavar="DIR", help="images, for the report's pictures")
    parser.add_argument("--cases", nargs="+", default=(), metavar="CASE", help="cases to show in the report as well")
    parser.add_argument("--subgroups", type=Path, metavar="CSV", help="cases and their groups, for the report")
    parser.add_argument("--ignore-geometry", action="store_true", help="compare files whatever their place in space")
    parser.add_argument(
        "--jobs", type=int, default=cpus(), metavar="N", help="greatest number of processes (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    _check(args)
    from nnunet_ext.evaluation.evaluation import CSV, JSON, check_folder
    from nnunet_ext.evaluation.evaluator import evaluate_source
    from nnunet_ext.evaluation.origin import of_members, with_prompts
    from nnunet_ext.evaluation.source import from_folders, from_model

    if args.m:
        source = from_model(args.m, args.f, args.labels_from)
    else:
        source = from_folders(args.pred, args.ref, args.dataset_json, args.labels_from)
    validation = f"fold_{args.f[0]}/validation" if args.m and len(args.f) == 1 else ""
    out = args.out or args.pred or args.m / (validation or f"validation_folds_{'_'.join(args.f)}")
    check_folder(out)
    if args.report:
        from nnunet_ext.report import check_file, extras_of

        check_file(args.report)
        extras = extras_of([files.case for files in source.cases], cases=args.cases, groups=args.subgroups)
    if args.prompts:
        source.info.update(with_prompts(source.info, args.prompts))
    if args.members:
        source.info.update(of_members(source.info, args.members))
    if args.name:
        source.info["name"] = args.name
    if args.images:
        source.info["images"] = str(args.images.resolve())
    source.info["command"] = shlex.join(["nnunet_ext", *sys.argv[1:]]) if sys.argv[1:2] == ["evaluate"] else ""
    evaluation = evaluate_source(
        source,
        tolerance=args.tolerance,
        lesion_iou=args.lesion_iou,
        jobs=args.jobs,
        check_geometry=not args.ignore_geometry,
        track=progress_bar,
    )
    evaluation.save(out)
    for line in table(evaluation):
        print(line)
    print(f"\n{out / CSV}   per case\n{out / JSON}  the same, and all sums")
    if args.report:
        from nnunet_ext.report import build_report

        models = {evaluation.info["name"]: [evaluation]}
        build_report(models, args.report, images=args.images, extras=extras, track=progress_bar)
        print(args.report)
    return 0


def _check(args: argparse.Namespace) -> None:
    folders, model = (args.pred, args.ref), (args.m, args.f)
    if not (all(folders) and not any((*model,))) and not (all(model) and not any((*folders, args.dataset_json))):
        raise InputError(
            "Either two folders or a trained model is evaluated.", hint="Give --pred and --ref, or -m and -f."
        )
    problems = [f"--tolerance {args.tolerance:g} is not a distance."] if not args.tolerance >= 0 else []
    problems += [] if 0 < args.lesion_iou <= 1 else [f"--lesion-iou {args.lesion_iou:g} is not above 0 and at most 1."]
    problems += ["--jobs must be at least 1."] if args.jobs < 1 else []
    problems += [f"--images {args.images} is not a directory."] if args.images and not args.images.is_dir() else []
    problems += ["--cases and --subgroups need --report."] if (args.cases or args.subgroups) and not args.report else []
    if problems:
        raise InputError(*problems)


def table(evaluation: Evaluation) -> list[str]:
    """Return the sums as lines of text."""
    from nnunet_ext.evaluation.intervals import LEVEL, coverage
    from nnunet_ext.metrics.definitions import METRICS

    name, tolerance = evaluation.info.get("name", ""), evaluation.info.get("nsd_tolerance", 0)
    prompts, trained = evaluation.info.get("prompts", "unknown"), evaluation.info.get("trained_cases", ())
    lines = [f"{name}: {len(evaluation.cases)} cases", *(f"Note: {note}" for note in evaluation.notes)]
    if prompts == "unknown":
        lines.append("No file says whether prompts were given; --prompts does.")
    elif prompts != "none":
        lines.append(f"Prompts came from: {prompts}. Not comparable with methods that got none.")
    if trained:
        of_all = f"{len(trained)} of these {len(evaluation.cases)} cases are training cases of the model"
        lines.append(f"{of_all} ({some(trained)}). Not comparable with results on held-out cases.")
    header = f"  {'':<26} {'n':>5}  {'mean':>9}  {'[95 % interval]':>20}  {'median':>9}  {'pooled':>9}  undefined"
    for structure, summary in evaluation.summaries.items():
        labels = evaluation.structures[structure]
        which = f"label{'s' * (len(labels) > 1)} {', '.join(map(str, labels))}"
        lines += ["", f"{structure} ({which}): {_emptiness(summary, evaluation.units)}", header]
        images = summary.metrics["hd_rows"].n == summary.cases  # 2D, where the mean of slices says nothing new
        hidden = ("file", "volume") if images else ("file",)
        shown = [m for m in METRICS if summary.metrics[m.key].n and m.shown not in hidden]
        lines += [_line(m, summary.metrics[m.key], evaluation.units) for m in shown]
    return [
        *lines,
        "",
        f"[ ]: Student's t {100 * LEVEL:.0f} % interval of the mean. pooled: from the summed counts of all cases.",
        *filter(None, [coverage("mean", len(evaluation.cases))]),
        f"NSD: tolerance {tolerance:g} {evaluation.units.length}. Lesions: matched one to one from an IoU of "
        f"{evaluation.info.get('lesion_iou', LESION_IOU):g}. All definitions are in metrics.json.",
    ]


def _line(metric: Metric, s: Summary, units: Units) -> str:
    interval = f"[{_number(s.low)}, {_number(s.high)}]" if s.n > 1 else ""
    pooled = _number(s.pooled) if s.pooled == s.pooled else ""
    return (
        f"  {units.label(metric):<26} {s.n:>5}  {_number(s.mean):>9}  {interval:>20}  {_number(s.median):>9}  "
        f"{pooled:>9}  {s.undefined or ''}"
    ).rstrip()


def _number(value: float) -> str:
    """Return a number with four digits after the point, as ratios have, or fewer where it is larger."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 10_000 else f"{value:,.0f}"


def _emptiness(s: StructureSummary, units: Units) -> str:
    parts = [f"{s.cases} cases"]
    if s.missed:
        parts.append(f"{s.missed} with an empty prediction only (Dice 0, no distance)")
    if s.both_empty:
        parts.append(f"{s.both_empty} empty in both (undefined)")
    if s.without:
        volume = sum(s.without.values()) / len(s.without)
        parts.append(
            f"{len(s.without)} without the structure, {s.invented} of them with false positives, "
            f"on average {_number(volume)} {units.volume}"
        )
    return "; ".join(parts)
