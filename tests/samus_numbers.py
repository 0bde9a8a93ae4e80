"""What SAMUS must give on the deterministic weights: the official code's numbers, thinned out.

    python tests/samus_numbers.py ../shared/oracle/samus    # write data/samus.json anew

`vit_b` holds values of the official code (see `samus_reference`) for `samus_weights.Batch()`; `tiny` those of
`ReferenceSAMUS(**TINY)` for `Batch(64)`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from samus_reference import TINY, ReferenceSAMUS
from samus_weights import Batch, fill_, gradient_norms, intermediates

FILE = Path(__file__).parent / "data" / "samus.json"
WHOLE = ("neck", "low_res_logits")  # kept at all positions; of the rest 4 x 4 tokens, channels last
SAMPLES = {"low_res_logits": 64}  # values per tensor, else 8
DEAD = "Space_Adapter.k.bias"  # adds the same to all logits of a query: its gradient is rounding noise


def thin(part: str, t: torch.Tensor) -> torch.Tensor:
    """What the numbers know of an intermediate of `samus_weights.intermediates`."""
    if part in WHOLE:
        return t
    t = t.permute(0, 2, 3, 1) if part == "cnn_stem" else t
    stride = t.shape[1] // 4
    return t[:, ::stride, ::stride]


def sample(part: str, thinned: torch.Tensor) -> dict[str, object]:
    """The largest magnitude, and values evenly spaced from the first to the last."""
    count = SAMPLES.get(part, 8)
    where = torch.arange(count) * (thinned.numel() - 1) // (count - 1)
    return {"max": thinned.abs().max().item(), "values": thinned.flatten()[where].tolist()}


def numbers(name: str) -> dict[str, dict]:
    """`outputs` (by part: max and values) and `gradient_norms` (by parameter) of `vit_b` or `tiny`."""
    return json.loads(FILE.read_text())[name]


def output_errors(outputs: Mapping[str, torch.Tensor], expected: Mapping[str, dict]) -> dict[str, float]:
    """Largest error of every expected part, relative to the part's largest magnitude."""
    errors = {}
    for part, known in expected.items():
        values = sample(part, thin(part, outputs[part]))["values"]
        errors[part] = float(np.abs(np.subtract(values, known["values"])).max() / known["max"])
    return errors


def gradient_errors(norms: Mapping[str, float], expected: Mapping[str, float]) -> dict[str, float]:
    """Relative error of every expected gradient norm but the dead ones."""
    return {n: abs(norms[n] / known - 1) for n, known in expected.items() if not n.endswith(DEAD)}


def main(oracle: Path) -> None:
    """Write the file."""
    arrays = np.load(oracle / "outputs.npz")
    official = {part.removeprefix("at_"): torch.from_numpy(arrays[part]) for part in arrays.files if "at_" in part}
    official["low_res_logits"] = torch.from_numpy(arrays["low_res_logits"])
    net, batch = fill_(ReferenceSAMUS(**TINY)), Batch(64)
    outputs = intermediates(net, batch)
    norms = gradient_norms(net, batch, outputs["low_res_logits"])
    content = {
        "vit_b": {
            "outputs": {part: sample(part, t) for part, t in official.items()},
            "gradient_norms": json.loads((oracle / "grad_norms.json").read_text()),
        },
        "tiny": {
            "outputs": {part: sample(part, thin(part, t)) for part, t in outputs.items()},
            "gradient_norms": norms,
        },
    }
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
