"""What SAMUS must give on the deterministic weights of `samus_weights`, thinned out.

    python tests/samus_numbers.py ../shared/oracle/samus    # write data/samus.json anew: two minutes, 3 GB

`official`: the official code (see `samus_reference`) on the oracle's weights; of low-res logits and gradients only the
first digits mean something. `vit_b` and `tiny`: `ReferenceSAMUS()`, which agrees with the official code as far as that
goes, and `ReferenceSAMUS(**TINY)`, both on calm weights.
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
    """`outputs` (by part: max and values) and `gradient_norms` (by parameter) of `official`, `vit_b` or `tiny`."""
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


def official_numbers(oracle: Path) -> dict[str, dict]:
    """Thinned out from the official code's output."""
    arrays = np.load(oracle / "outputs.npz")
    parts = {part.removeprefix("at_"): part for part in arrays.files if part.startswith("at_")}
    parts["low_res_logits"] = "low_res_logits"
    outputs = {part: sample(part, torch.from_numpy(arrays[key])) for part, key in parts.items()}
    return {"outputs": outputs, "gradient_norms": json.loads((oracle / "grad_norms.json").read_text())}


def reference_numbers(batch: Batch, **sizes: object) -> dict[str, dict]:
    """From the reference on calm weights."""
    net = fill_(ReferenceSAMUS(**sizes))
    outputs = intermediates(net, batch)
    return {
        "outputs": {part: sample(part, thin(part, t)) for part, t in outputs.items()},
        "gradient_norms": gradient_norms(net, batch, outputs["low_res_logits"]),
    }


def main(oracle: Path) -> None:
    """Write the file."""
    content = {
        "official": official_numbers(oracle),
        "vit_b": reference_numbers(Batch()),
        "tiny": reference_numbers(Batch(TINY["image_size"]), **TINY),
    }
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
