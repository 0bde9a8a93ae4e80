"""nnunet_ext.Session: its masks are those of nnunet_ext predict, its files are its own, and it encodes once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_predict import model, predict, raw, read, record, trained

import nnunet_ext
from nnunet_ext.common.errors import InputError

__all__ = ["trained"]  # the fixture


@pytest.fixture
def session(trained: Path) -> nnunet_ext.Session:
    session = nnunet_ext.Session(model(trained))
    session.set_image(raw(trained, "imagesTr") / "case_1_0000.png")
    return session


def test_masks_and_files_are_those_of_predict(session: nnunet_ext.Session, trained: Path, tmp_path: Path) -> None:
    session.add_point(18, 20)
    session.add_point(2, 3, foreground=False)
    session.add_box(8, 9, 30, 31, number=2)
    assert session.shape == (1, 40, 36)
    (tmp_path / "prompts.json").write_text(json.dumps({"case_1": session.prompts}))
    predict(trained, tmp_path / "file", "--prompts", tmp_path / "prompts.json", "--npz")
    saved = session.save(tmp_path / "session")
    assert saved == tmp_path / "session" / "case_1.png"
    for mask in (session.mask()[0], read(saved)):
        assert np.array_equal(mask, read(tmp_path / "file" / "case_1.png"))
    probabilities = np.load(tmp_path / "file" / "case_1.npz")["probabilities"]
    np.testing.assert_allclose(session.probability(), probabilities, atol=1e-5)
    assert record(tmp_path / "session")["source"] == "session"
    assert record(tmp_path / "session")["cases"] == {"case_1": session.prompts}


def test_undo_reset_load_and_one_encoding(session: nnunet_ext.Session) -> None:
    calls: list[int] = []
    session._model.network.model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    learned = session.probability(prompted=False)
    session.add_point(18, 20)
    clicked, prompts = session.probability(), session.prompts
    session.add_box(3, 4, 20, 30)
    session.add_box(5, 5, 20, 30)  # takes the other one's place
    boxed = session.probability()
    assert not np.allclose(clicked, boxed)
    assert session.undo()
    assert session.undo()
    assert np.array_equal(session.probability(), clicked)
    session.reset()
    assert not session.undo()
    assert np.array_equal(session.probability(), learned)
    session.load(prompts)
    assert np.array_equal(session.probability(), clicked)
    assert len(calls) == 1


def test_wrong_prompts_and_images_change_nothing(session: nnunet_ext.Session, tmp_path: Path) -> None:
    session.add_point(18, 20)
    before = session.prompts
    for wrong in (
        lambda: session.add_point(36, 20),
        lambda: session.add_point(float("nan"), 20),
        lambda: session.add_point(3, 20, label="cyst"),
        lambda: session.add_box(9, 9, 9, 12),
        lambda: session.load([{"point": [1, 2, 3]}]),
        lambda: session.set_image(tmp_path / "missing.png"),
        lambda: session.set_image(np.zeros((3, 40, 36))),
        lambda: session.set_image(np.zeros((40, 36)), name="../elsewhere"),
    ):
        with pytest.raises(InputError):
            wrong()
        assert session.prompts == before


def test_saves_into_its_own_folder_only(session: nnunet_ext.Session, trained: Path, tmp_path: Path) -> None:
    session.add_point(18, 20)
    session.save(tmp_path / "out")
    session.add_point(20, 20)
    session.save(tmp_path / "out")  # its own may be replaced
    session.set_image(np.zeros((40, 36), np.uint8), name="other")
    session.save(tmp_path / "out")
    assert sorted(record(tmp_path / "out")["cases"]) == ["case_1", "other"]
    predict(trained, tmp_path / "predicted")
    with pytest.raises(InputError, match=r"prompts_used.json was not written by a session"):
        session.save(tmp_path / "predicted")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "other.png").write_bytes(b"a user's")
    with pytest.raises(InputError, match=r"other.png was not written"):
        session.save(tmp_path / "plain")


def test_volumes(trained: Path, tmp_path: Path) -> None:
    session = nnunet_ext.Session(model(trained, dataset=36))
    with pytest.raises(InputError, match="no image yet"):
        session.add_point(1, 2)
    session.set_image(np.random.default_rng(0).normal(size=(2, 40, 36)), name="array", spacing=(3, 1, 1))
    learned = session.probability()
    with pytest.raises(InputError, match='"class" must say which'):
        session.add_point(18, 20, 1)
    session.add_point(18, 20, 1, label="tumour")
    clicked = session.probability()
    assert np.array_equal(clicked[:, 0], learned[:, 0])  # slices without prompts stay as they are
    assert not np.allclose(clicked[:, 1], learned[:, 1])
    saved = session.save(tmp_path / "out")
    assert np.array_equal(read(saved), session.mask())
