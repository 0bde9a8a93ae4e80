"""Measure what prompts are worth to one model: without any, with 1, 2, 3 and 5 corrective clicks, and with a box.

  nnunet_ext prompt-curve -m MODEL_FOLDER -i imagesTs --ref labelsTs -o OUT --report curve.html

The same checkpoint predicts the same images six times, with prompts that are made of the references (docs/prompts.md
has the rules), which flatters: people click less well. OUT has a folder of predictions with metrics for each, the
comparison, and prompt_curve.csv with Dice against clicks. The same command continues. A model that was trained with
clicks only is not asked without; one that takes no boxes gets none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import continuing, progress_bar

HELP = "Dice against the number of clicks, for one model"
RULES = {  # of each folder; the first has no prompts
    "none": "",
    **{f"clicks_{n}": f"corrections:{n}" for n in (1, 2, 3, 5)},
    "box": "box",
}
CURVE = "prompt_curve.csv"
COLUMNS = ["prompts", "clicks", "structure", "n", "dice", "low", "high"]
HINT = "Name another folder with -o."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", type=Path, required=True, metavar="DIR", help="model: TRAINER__PLANS__CONFIGURATION")
    parser.add_argument("-i", type=Path, required=True, metavar="DIR", help="images, as trained on")
    parser.add_argument("--ref", type=Path, required=True, metavar="DIR", help="their reference segmentations")
    parser.add_argument("-o", type=Path, required=True, metavar="DIR", help="folder of everything that is made")
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds to average; default: all that are there")
    parser.add_argument("-chk", default="checkpoint_best.pth", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--report", type=Path, metavar="FILE", help="HTML report of the comparison")
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    import pandas as pd
    import torch

    from nnunet_ext import comparison
    from nnunet_ext.common.files import check_replaceable, write_results
    from nnunet_ext.evaluation.evaluator import evaluate_source
    from nnunet_ext.evaluation.source import from_folders
    from nnunet_ext.inference.model_folder import PromptedModelFolder
    from nnunet_ext.inference.prediction import Request, predict
    from nnunet_ext.inference.reference_prompts import ReferenceRule

    if not args.ref.is_dir():
        raise InputError(f"{args.ref} is not a directory.", hint="Name the folder of references with --ref.")
    comparison.check_folder(args.o)
    check_replaceable([args.o / CURVE], _is_ours, "nnunet_ext prompt-curve", HINT)
    if args.report is not None:
        from nnunet_ext.report import build_report, check_file

        check_file(args.report)
    folds = tuple(args.f) if args.f else None
    model = PromptedModelFolder(args.m, folds, args.chk, torch.device(args.device))
    rules = {
        name: rule
        for name, rule in RULES.items()
        if not (name == "none" and model.needs_clicks) and not (name == "box" and not model.takes_boxes)
    }
    evaluations = {}
    with continuing():
        for name, rule in rules.items():
            print(f"{name}:", flush=True)
            request = Request(
                model=args.m,
                source=args.i,
                out=args.o / name,
                folds=folds,
                checkpoint=args.chk,
                reference=args.ref if rule else None,
                rule=ReferenceRule.parse(rule) if rule else ReferenceRule(),
                device=args.device,
            )
            predict(request, model=model, track=progress_bar)
            source = from_folders(args.o / name, args.ref)
            source.info["name"] = name
            evaluations[name] = evaluate_source(source, track=progress_bar)
            evaluations[name].save(args.o / name)
    models = {name: [evaluation] for name, evaluation in evaluations.items()}
    result = comparison.compare(models)
    comparison.save(result, args.o)
    rows = []
    for name, evaluation in evaluations.items():
        for structure, summary in evaluation.summaries.items():
            dice = summary.metrics["dice"]
            rows.append((name, _clicks(name), structure, dice.n, dice.mean, dice.low, dice.high))
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"clicks": "Int64"})
    write_results({args.o / CURVE: comparison.to_csv(table)}, HINT)
    print(comparison.to_text(result))
    print(f"{args.o}: {CURVE}, {', '.join(comparison.FILES)}")
    if args.report is not None:
        build_report(models, args.report, comparison=result, images=args.i, track=progress_bar)
        print(args.report)
    return 0


def _is_ours(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.readline().startswith(",".join(COLUMNS).encode())


def _clicks(name: str) -> int | None:
    """Return the number of clicks of a folder; None for boxes."""
    return None if name == "box" else int(RULES[name].partition(":")[2] or 0)
