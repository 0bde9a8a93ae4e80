"""Files of prompts and what becomes of them: boxes, objects, CSV, and requests that are answered together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_predict import model, predict, record, trained
from training import CPU

from nnunet_ext.common.errors import InputError
from nnunet_ext.inference.model_folder import PromptedModelFolder
from nnunet_ext.inference.prompt_file import read_prompts, schema
from nnunet_ext.inference.prompts import ObjectPrompt, Prompts, to_preprocessed

__all__ = ["trained"]  # the fixture
DOCS = Path(__file__).parent.parent / "docs"
CASES = {"cases": ["a", "b"], "classes": ["lesion"], "ndim": 2}


def test_csv_says_what_json_says(tmp_path: Path) -> None:
    csv, as_json = tmp_path / "prompts.csv", tmp_path / "prompts.json"
    csv.write_text("case,x,y,foreground,object,x0,y0,x1,y1\na,1.5,2,,,,,,\na,3,4,false,2,,,,\nb,,,,,1,2,3,4\n")
    content = {
        "a": [{"point": [1.5, 2]}, {"point": [3, 4], "foreground": False, "object": 2}],
        "b": [{"box": [1, 2, 3, 4]}],
    }
    as_json.write_text(json.dumps(content))
    assert read_prompts(csv, **CASES) == read_prompts(as_json, **CASES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n", "the first line must name columns"),
        ("case,x,y\na,1\n", "line 2: not as many fields"),
        ("case,x,y\na,one,2\n", "line 2: point, item 1"),
        ("case,x,y\na,nan,2\n", "line 2: point, item 1"),
        ("case,x,y,foreground\na,1,2,perhaps\n", "line 2: foreground"),
        ("case,x,y,x0\na,1,2,3\n", 'either "point" or "box"'),
        ("case,x,y\nz,1,2\n", "no image for z"),
        ("", "the first line"),
    ],
)
def test_wrong_csv(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text(text)
    with pytest.raises(InputError) as e:
        read_prompts(tmp_path / "prompts.csv", **CASES)
    assert message in str(e.value)
    assert "prompts.csv" in str(e.value)


def test_missing_cases_are_an_error_only_where_prompts_are_required(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text('{"a": [{"point": [1, 2]}]}')
    assert read_prompts(file, **CASES)["b"] == []
    with pytest.raises(InputError, match="no prompts for b"):
        read_prompts(file, **CASES, required=True)


def test_schema_of_the_documents() -> None:
    text = (DOCS / "prompts.md").read_text()
    assert json.loads(text.split("```json\n")[-1].split("```")[0]) == schema()


def test_boxes_are_moved_and_cut() -> None:
    properties = {"bbox_used_for_cropping": [[0, 1], [10, 30], [0, 36]], "shape_before_cropping": (1, 40, 36)}
    where = {"classes": ["lesion"], "properties": properties, "shape": (1, 40, 72), "transpose_forward": [0, 1, 2]}
    prompts = [
        {"class": "lesion", "box": [3, 5, 18, 20]},
        {"class": "lesion", "point": [18, 20], "foreground": False},
    ]
    [found] = to_preprocessed(prompts, name="x", **where)[0, 0]
    torch.testing.assert_close(found.xy, torch.tensor([[36.5, 20.5], [6.5, -0.5], [36.5, 20.5]]))
    assert found.labels.tolist() == [0, 2, 3]
    with pytest.raises(InputError, match="empty margin"):
        to_preprocessed([{"class": "lesion", "box": [3, 2, 18, 8]}], name="x", **where)
    volume = {**where, "transpose_forward": [1, 0, 2]}
    with pytest.raises(InputError, match="does not lie in a slice"):
        to_preprocessed(
            [{"class": "lesion", "box": [3, 2, 18, 8, 0]}],
            name="x",
            **{
                **volume,
                "properties": {
                    "bbox_used_for_cropping": [[0, 40], [0, 1], [0, 36]],
                    "shape_before_cropping": (40, 1, 36),
                },
                "shape": (40, 1, 36),
            },
        )


def test_requests_answered_together_are_those_answered_alone(trained: Path) -> None:
    """And the slice is encoded once, whatever is asked."""
    folder = PromptedModelFolder(model(trained, dataset=36), None, "checkpoint_best.pth", CPU)
    generator = torch.Generator().manual_seed(0)
    objects = [
        ObjectPrompt(xy=torch.rand(n, 2, generator=generator) * 30, labels=torch.tensor(labels))
        for n, labels in ((1, [1]), (3, [1, 0, 1]), (2, [2, 3]), (1, [1]), (3, [0, 2, 3]))
    ]
    encoded = folder.encoded(torch.rand(1, 1, 256, 256, generator=generator))
    calls = []
    folder.network.model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    together = encoded.logits({(0, 0): tuple(objects)})
    apart = torch.stack([encoded.logits({(0, 0): (prompt,)}) for prompt in objects]).amax(0)
    torch.testing.assert_close(together[1], apart[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together[2], encoded.logits({})[2])  # the other class: the learned prompt
    assert len(calls) == 1
    empty: Prompts = {}
    assert torch.equal(encoded.logits(empty), encoded.logits({}))


def test_boxes_and_objects_of_a_file(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    entries = [
        {"class": "tumour", "box": [3, 4, 20, 30]},
        {"class": "tumour", "object": 2, "point": [30, 35], "foreground": True},
    ]
    file.write_text(json.dumps({"case_0": entries}))
    assert predict(trained, tmp_path / "out", "--prompts", file, "--npz") == 0
    assert record(tmp_path / "out")["cases"] == {"case_0": entries, **{f"case_{i}": [] for i in (1, 2, 3)}}
    predict(trained, tmp_path / "none", "--npz")
    same = [
        np.array_equal(*(np.load(tmp_path / out / f"case_{i}.npz")["probabilities"] for out in ("out", "none")))
        for i in (0, 1)
    ]
    assert same == [False, True]  # cases without prompts: the learned ones
    assert predict(trained, tmp_path / "new", "--prompts", file, "--require-prompts") == 2
