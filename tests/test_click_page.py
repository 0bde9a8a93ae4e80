"""The server of the page: what it answers, whom it refuses, and that nothing which is sent to it ends it."""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from test_predict import model, raw, read, record, trained

from nnunet_ext.app.cases import Case, Pixels, find_cases, read_labels, read_pixels
from nnunet_ext.app.server import ASKING, LARGEST, PageServer
from nnunet_ext.app.workspace import Workspace
from nnunet_ext.cli import click, main
from nnunet_ext.common.errors import InputError
from nnunet_ext.inference.session import Session

__all__ = ["trained"]  # the fixture
POINT = [{"point": [18, 20], "foreground": True, "class": "tumour"}]


class Browser:
    """Asks as the page does; `token` is what its cookie has."""

    def __init__(self, server: PageServer, token: str | None = None) -> None:
        self.server = server
        token = server.token if token is None else token
        self.headers = {"Cookie": f"{server.cookie}={token}", ASKING: "1", "Content-Type": "application/json"}

    def request(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in {**self.headers, **more}.items() if value is not None}
        connection.request(method, path, body or None, sent)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def ask(self, what: str, **content: object) -> tuple[int, bytes]:
        status, _, answer = self.request("POST", f"/api/{what}", json.dumps(content).encode())
        return status, answer


def served(workspace: Workspace) -> Iterator[Browser]:
    with PageServer(workspace) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Browser(server)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page") / "out"


@pytest.fixture(scope="module")
def browser(trained: Path, out: Path) -> Iterator[Browser]:
    workspace = Workspace(find_cases(raw(trained, "imagesTr")), session=Session(model(trained)), out=out)
    yield from served(workspace)


def test_a_click_is_answered_and_saved_as_the_session_does(browser: Browser, trained: Path, out: Path) -> None:
    state = json.loads(browser.ask("state")[1])
    assert [case["name"] for case in state["cases"]] == ["case_0", "case_1", "case_2", "case_3"]
    assert (state["classes"], state["labels"], state["clicks"]) == (["tumour"], {"1": "tumour"}, True)
    opened = json.loads(browser.ask("open", case=1)[1])
    assert (opened["shape"], opened["spacing"], opened["bytes"]) == ([1, 40, 36], None, True)
    pixels = np.frombuffer(browser.ask("pixels", case=1, z=0)[1], np.uint8).reshape(40, 36)
    assert np.array_equal(pixels, read(raw(trained, "imagesTr") / "case_1_0000.png"))
    session = Session(model(trained))
    session.set_image(raw(trained, "imagesTr") / "case_1_0000.png")
    learned = session.mask()[0]
    session.load(POINT)
    for prompted, expected in ((True, session.mask()[0]), (False, learned)):
        status, mask = browser.ask("mask", case=1, z=0, prompts=POINT, prompted=prompted)
        assert status == 200
        assert np.array_equal(np.frombuffer(mask, "<u2").reshape(40, 36), expected)
    saved = json.loads(browser.ask("save", case=1, prompts=POINT)[1])
    assert saved == {"file": str(out / "case_1.png")}
    assert np.array_equal(read(out / "case_1.png"), session.mask()[0])
    assert record(out)["source"] == "session"
    again = Workspace(find_cases(raw(trained, "imagesTr")), session=session, out=out)  # where it was left
    assert [case["saved"] for case in again.state()["cases"]] == [False, True, False, False]
    assert again.open(1)["prompts"] == session.prompts


def test_wrong_questions_have_an_answer_and_change_nothing(browser: Browser) -> None:
    assert browser.ask("open", case=0)[0] == 200
    for what, content in (
        ("mask", {"case": 0, "z": 0, "prompts": [{"point": [99, 1]}]}),
        ("mask", {"case": 0, "z": 0, "prompts": [{"point": [1, 1], "class": "cyst"}]}),
        ("mask", {"case": 0, "z": 1, "prompts": []}),
        ("mask", {"case": 1, "z": 0, "prompts": []}),
        ("mask", {"case": 0, "z": 0, "prompts": [{}] * 1001}),
        ("save", {"case": 0, "prompts": [], "file": "/etc/passwd"}),
        ("layer", {"case": 0, "z": 0, "layer": "../../etc"}),
        ("open", {"case": 99}),
        ("open", {"case": -1}),
        ("open", {"case": "0"}),
        ("open", {}),
    ):
        status, answer = browser.ask(what, **content)
        assert status == 400, (what, content)
        assert json.loads(answer)["error"]
    assert browser.ask("elsewhere")[0] == 404
    assert browser.ask("pixels", case=0, z=0)[0] == 200


@pytest.mark.parametrize("path", ["/", "/click.js", "/click.css", "/../server.py", "/page/index.html"])
def test_nobody_sees_anything_without_the_token(browser: Browser, path: str) -> None:
    for headers in (
        {"Cookie": None},
        {"Cookie": f"{browser.server.cookie}=wrong"},
        {"Cookie": f"{browser.server.cookie}=\xe9"},
        {"Cookie": "=;;\x01="},
    ):
        status, sent, content = browser.request("GET", path, **headers)
        assert status == 403
        assert b"<" not in content
        assert browser.request("POST", "/api/state", b"{}", **headers)[0] == 403
        assert "Set-Cookie" not in sent
    assert browser.request("GET", "/?token=wrong", Cookie=None)[0] == 403


def test_the_token_becomes_a_cookie_of_this_site_alone(browser: Browser) -> None:
    status, sent, _ = browser.request("GET", f"/?token={browser.server.token}", Cookie=None)
    assert (status, sent["Location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict"} <= set(sent["Set-Cookie"].split("; "))
    status, sent, page = browser.request("GET", "/")
    assert status == 200
    assert b"canvas" in page
    assert sent["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    assert "Access-Control-Allow-Origin" not in sent
    assert browser.request("GET", "/../app/server.py")[0] == 404


def test_other_sites_cannot_ask(browser: Browser) -> None:
    port = browser.server.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "169.254.169.254", "[::1", ""):
        assert browser.request("GET", "/", Host=host)[0] == 421, host
    assert browser.request("GET", "/", Host="localhost:9999")[0] == 200  # forwarded by ssh
    for headers in ({ASKING: None}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert browser.request("POST", "/api/state", b"{}", **headers)[0] == 403
    assert browser.request("POST", "/api/state", b"{}", Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert browser.request("OPTIONS", "/api/state")[0] == 501


def test_requests_that_claim_too_much_are_not_read(browser: Browser) -> None:
    for length in (str(LARGEST + 1), "9" * 30):
        assert browser.request("POST", "/api/mask", Content_Length=length)[0] == 413
    for length in ("-1", "1e3", "", "²"):
        with_length = browser.request("POST", "/api/mask", Content_Length=length.encode("latin-1"))
        assert with_length[0] == 411
    deep = b"[" * 100_000
    assert browser.request("POST", "/api/state", deep)[0] == 200  # takes no content
    assert browser.request("POST", "/api/open", deep)[0] == 400


def test_survives_two_thousand_bad_requests(browser: Browser) -> None:
    rng = random.Random(5)
    good = json.dumps({"case": 0, "z": 0, "prompts": POINT, "prompted": True}).encode()
    browser.ask("open", case=0)
    values = [None, True, -1, 1e308, "x" * 999, [], {}, [[[]]], float("nan"), 10**30, "../x", "\0", "\ud800"]
    seen = set()
    for i in range(1600):
        body = bytearray(good)
        if i % 2:
            for _ in range(rng.randint(1, 6)):
                body[rng.randrange(len(body))] = rng.randrange(256)
        else:
            prompt = {
                rng.choice(["point", "box", "class", "object", "foreground", "z"]): rng.choice(values) for _ in "ab"
            }
            content = {"case": 0, "z": 0, "prompts": [{**POINT[0], **prompt}]}
            content[rng.choice(["case", "z", "prompts", "prompted", "other"])] = rng.choice([*values, 0, [prompt]])
            body = bytearray(json.dumps(content).encode())
        what = rng.choice(["mask", "open", "pixels", "layer", "save"]) if i % 5 else "mask"
        if what == "save":
            body = body.replace(b'"z": 0, ', b"")[: rng.randrange(1, len(body))]  # cut, so that nothing is saved
        seen.add(browser.request("POST", f"/api/{what}", bytes(body))[0])
    assert seen <= {200, 400}
    lines = [
        b"GET",
        b"\r\n\r\n",
        b"\0" * 50,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/open HTTP/1.1\r\nHost: localhost\r\n",
    ]
    lines += [b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n"]
    for i in range(400):
        line = lines[i % len(lines)] if i < 100 else rng.randbytes(rng.randrange(1, 300))
        with socket.create_connection(("127.0.0.1", browser.server.server_port), timeout=10) as connection:
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert browser.ask("state")[0] == 200


def test_a_volume_is_answered_slice_by_slice(trained: Path, tmp_path: Path) -> None:
    session = Session(model(trained, dataset=36))
    source = tmp_path / "ct.nii.gz"
    array = np.random.default_rng(0).normal(size=(3, 40, 36)).astype(np.float32)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.8, 3))
    sitk.WriteImage(image, source)
    workspace = Workspace(find_cases(source), session=session, out=tmp_path / "out")
    opened = workspace.open(0)
    assert opened["spacing"] == pytest.approx((3, 0.8, 0.5))
    prompts = [{"point": [18, 20, 1], "class": "tumour"}]
    mask = np.frombuffer(workspace.mask(0, 1, prompts, prompted=True), "<u2").reshape(40, 36)
    assert workspace.progress() == {"encoded": 1, "slices": 3}  # and the others are not encoded
    assert np.array_equal(mask, session.mask()[1])
    assert np.array_equal(np.frombuffer(workspace.pixels(0, 2), "<f4").reshape(40, 36), array[2])
    with pytest.raises(InputError, match="no slice 3"):
        session.mask_of_slice(3)


def test_reads_dicom(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="no pydicom to write DICOM with")
    from dicom_source import write_ultrasound

    pixels = read(raw(trained, "imagesTr") / "case_1_0000.png")
    (tmp_path / "dicom").mkdir()
    write_ultrasound(tmp_path / "dicom" / "a.dcm", pixels[None])
    arguments = {"f": None, "chk": "checkpoint_best.pth", "device": "cpu", "demo": False, "show": None}
    args = argparse.Namespace(
        **arguments, m=model(trained), i=tmp_path / "dicom", o=tmp_path / "out", reference=None, port=0
    )
    with click._workspace(args) as workspace:
        workspace.open(0)
        assert np.array_equal(np.frombuffer(workspace.pixels(0, 0), np.uint8).reshape(pixels.shape), pixels)
        workspace.save(0, [])
    assert [file.suffix for file in (tmp_path / "out").iterdir() if file.suffix != ".json"] == [".png"]


def test_shows_predictions_of_any_model(tmp_path: Path) -> None:
    for name in ("images", "predicted", "reference"):
        (tmp_path / name).mkdir()
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    labels = sitk.GetImageFromArray(np.array([0] * 12 + [1] * 5 + [2] * 7, np.uint8).reshape(2, 3, 4))
    sitk.WriteImage(image, tmp_path / "images" / "a_0000.nii.gz")
    sitk.WriteImage(labels, tmp_path / "predicted" / "a.nii.gz")
    sitk.WriteImage(labels, tmp_path / "reference" / "a.mha")
    (tmp_path / "predicted" / "dataset.json").write_text(
        json.dumps(
            {
                "labels": {"background": 0, "liver": 1, "tumour": 2},
                "file_ending": ".nii.gz",
                "channel_names": {"0": "CT"},
            }
        )
    )
    layers = {"prediction": tmp_path / "predicted", "reference": tmp_path / "reference"}
    workspace = Workspace(find_cases(tmp_path / "images"), layers=layers)
    assert workspace.state()["labels"] == {1: "liver", 2: "tumour"}
    opened = workspace.open(0)
    assert (opened["slice"], opened["layers"]) == (1, ["prediction", "reference"])
    assert np.frombuffer(workspace.layer(0, 1, "reference"), "<u2").tolist() == [1] * 5 + [2] * 7
    with pytest.raises(InputError, match="no model"):
        workspace.mask(0, 0, [], prompted=True)
    labels.SetOrigin((5, 0, 0))
    sitk.WriteImage(labels, tmp_path / "predicted" / "a.nii.gz")
    with pytest.raises(InputError, match="different places in space"):
        workspace.open(0)
    sitk.WriteImage(labels[:, :, :1], tmp_path / "predicted" / "a.nii.gz")
    with pytest.raises(InputError, match="4x3x1 pixels or voxels, the image 4x3x2"):
        workspace.open(0)
    whole = (tmp_path / "images" / "a_0000.nii.gz").read_bytes()
    (tmp_path / "images" / "a_0000.nii.gz").write_bytes(whole[:-9])  # which ITK fills up without a word
    with pytest.raises(InputError, match="cannot be read"):
        workspace.open(0)


def test_images_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no images"):
        find_cases(tmp_path)
    for name in ("b.png", "a_0000.nii.gz", "a_0001.nii.gz", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    assert find_cases(tmp_path) == [
        Case("a", (tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz")),
        Case("b", (tmp_path / "b.png",)),
    ]
    with pytest.raises(InputError, match="is empty"):
        read_pixels(Case("b", (tmp_path / "b.png",)))
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="under one name: b"):
        find_cases(tmp_path)
    nothing = Pixels(np.zeros((1, 1, 1, 1), np.uint8), None)
    assert read_labels(tmp_path, Case("none", (tmp_path / "none.png",)), nothing) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "MODEL"], "Which images?"),
        (["-m", "MODEL", "-i", "absent"], "absent does not exist"),
        (["-m", "MODEL", "-i", "IMAGES", "-o", "IMAGES", "--reference", "IMAGES"], "--reference is of --show"),
        (["-m", "MODEL", "-i", "IMAGES", "-o", "OUT", "--port", "99999999"], "cannot be used"),
        (["--show", "absent", "-i", "IMAGES"], "absent is not a directory"),
        (["--show", "OUT", "-i", "IMAGES"], "no segmentation of any image"),
        (["--demo", "-i", "IMAGES"], "brings its own images"),
        (["--demo", "-o", "IMAGES"], "holds something else"),
    ],
)
def test_wrong_arguments(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "OUT").mkdir()
    places = {"MODEL": model(trained), "IMAGES": raw(trained, "imagesTr"), "OUT": tmp_path / "OUT"}
    assert main(["click", "--no-browser", *(str(places.get(a, a)) for a in arguments)]) == 2
    assert message in capsys.readouterr().err
