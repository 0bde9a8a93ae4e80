"""Seconds to build the HTML report of 200 cases and five models, without pictures, and to compare the models.

    python benchmarks/report_build.py [--runs 5] [--quick]

Values are drawn at random; all metrics are defined, except in a tenth of the cases, which have no lesion.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from common import aim, interleaved, machine, medians, options, save

from nnunet_ext.comparison import compare
from nnunet_ext.evaluation.evaluation import Evaluation, table_of
from nnunet_ext.metrics.definitions import COUNTS, METRICS, PHYSICAL
from nnunet_ext.report import build_report

AIM = 15  # seconds
DRAWN = {"ratio": (0.0, 1.0), "length": (0.0, 40.0), "volume": (0.1, 60.0), "count": (0.0, 9.0)}


def evaluation(name: str, cases: int, seed: int) -> Evaluation:
    """Draw a model's values on so many cases."""
    rng = np.random.default_rng(seed)
    sizes = np.random.default_rng(0).lognormal(2, 1, cases)  # of the references, which all models share
    rows = []
    for i, size in enumerate(sizes):
        row = {m.key: rng.uniform(*DRAWN[m.quantity]) for m in METRICS} | {"dice": rng.beta(6, 2), "hd_rows": np.nan}
        if i % 10 == 0:
            row = {m.key: np.nan for m in METRICS} | {"volume_prediction": 0.0}
        row["volume_reference"] = 0.0 if i % 10 == 0 else size
        counts = dict.fromkeys(COUNTS, 0) | {"tp": 0 if i % 10 == 0 else int(1000 * size), "tn": 10**6}
        columns = {PHYSICAL.column(key): value for key, value in row.items()}
        rows.append({"case": f"case_{i:03d}", "structure": "tumour", **counts, **columns})
    info = {"name": name, "dataset": "Dataset029_LiTS", "nsd_tolerance": 2.0}
    return Evaluation(table=table_of(rows, PHYSICAL), units=PHYSICAL, structures={"tumour": (1,)}, info=info)


def main() -> None:
    """Measure, print, write."""
    args, where = options(__doc__, runs=5, quick="20 cases, one run").parse_args(), machine()
    cases, runs = (20, 1) if args.quick else (200, args.runs)
    models = {f"model {i}": [evaluation(f"model {i}", cases, seed=i)] for i in range(1, 6)}
    comparison = compare(models)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        variants = {
            "report of one model": lambda: build_report({"model 1": models["model 1"]}, file),
            "comparison of five models": lambda: compare(models),
            "report of five models, compared before": lambda: build_report(models, file, comparison=comparison),
        }
        seconds = medians(interleaved(variants, runs))
        variants["report of five models, compared before"]()
        megabytes = file.stat().st_size / 1e6
    *_, (name, longest) = seconds.items()
    save(
        "report_build",
        title=f"Building the report of {cases} cases",
        command="python benchmarks/report_build.py",
        notes=[
            f"Medians of {runs} interleaved runs, without pictures. The largest file has {megabytes:.1f} MB.",
            "",
            aim(f"seconds for the {name}", longest, AIM),
        ],
        header=("what", "s"),
        rows=[(what, f"{value:.2f}") for what, value in seconds.items()],
        packages=("jinja2", "pandas", "matplotlib", "numpy", "scipy"),
        where=where,
        write=not args.quick,
        cases=cases,
        runs=runs,
        seconds=seconds,
        megabytes=round(megabytes, 2),
    )


if __name__ == "__main__":
    main()
