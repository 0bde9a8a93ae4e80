"""The page in a real browser: a click, its mask where the click was, a box, undo, keys, saving, and what axe finds."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_predict import model, raw, read, record, trained
from test_report_browser import CHROMIUM

from nnunet_ext.app.cases import find_cases
from nnunet_ext.app.server import PageServer
from nnunet_ext.app.workspace import Workspace
from nnunet_ext.inference.encoded_case import EncodedFolds
from nnunet_ext.inference.prompts import Prompts
from nnunet_ext.inference.session import Session

__all__ = ["trained"]  # the fixture
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright to drive a browser with")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe to look for barriers with")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to show the page in"),
]
RADIUS = 40  # pixels of the preprocessed image
COLOUR = """([x, y]) => [...document.getElementById("main").getContext("2d")
  .getImageData(x * devicePixelRatio, y * devicePixelRatio, 1, 1).data]"""
REFUSED = "status of 400"  # what Chromium itself says of an answer that the page shows
PLACE = "([x, y]) => toScreen(x, y)"  # of a pixel of the image


def discs(case: EncodedFolds, prompts: Prompts, slices: Sequence[int] | None = None) -> torch.Tensor:
    """In place of a network: discs around points on the object, boxes as a whole, at the preprocessed size."""
    height, width = case._folds[0]._padded.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    logits = torch.full((2, 1, height, width), -1.0)
    for prompt in (p for of_class in prompts.values() for p in of_class):
        if prompt.has_box:
            (x0, y0), (x1, y1) = prompt.xy[-2:].tolist()
            logits[1, 0][(x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)] = 1
        for (px, py), label in zip(prompt.xy.tolist(), prompt.labels.tolist(), strict=True):
            if label == 1:
                logits[1, 0][(x - px) ** 2 + (y - py) ** 2 < RADIUS**2] = 1
    return logits[(slice(None), slice(None), *case._folds[0]._inner[1:])]


@pytest.fixture
def page(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(EncodedFolds, "logits", discs)
    session = Session(model(trained))
    workspace = Workspace(find_cases(raw(trained, "imagesTr")), session=session, out=tmp_path / "out")
    with PageServer(workspace) as server, playwright.sync_playwright() as driver:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "console",
            lambda message: (
                said.append(message.text) if message.type == "error" and REFUSED not in message.text else None
            ),
        )
        page.goto(server.url)
        until(page, "image !== null && fetched.get(0)?.masks.with")
        page.other = browser.new_context().new_page()  # a second browser, without the cookie
        page.address = server.url
        yield page
        browser.close()
        server.shutdown()
        thread.join()
    assert said == []


def until(page: Any, condition: str) -> None:
    """Wait until it is true of the page, whose policy forbids Playwright's own way, which compiles text there."""
    for _ in range(300):
        if page.evaluate(f"!!({condition})"):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {condition}; {page.inner_text('#status')}")


def clicked(page: Any, x: float, y: float, **options: Any) -> None:
    """Click on a pixel of the image and wait for the answer."""
    box = page.locator("#main").bounding_box()
    left, top = page.evaluate(PLACE, [x, y])
    with page.expect_response("**/api/mask"):
        page.mouse.click(box["x"] + left, box["y"] + top, **options)
    settle(page)


def settle(page: Any) -> None:
    until(page, "prompts.length === 0 || fetched.get(z).masks.with")
    page.wait_for_timeout(100)


def labels(page: Any) -> np.ndarray:
    """The mask that the page has, (y, x)."""
    return np.array(page.evaluate("[...fetched.get(z).masks.with]")).reshape(page.evaluate("image.shape.slice(1)"))


def test_from_the_first_click_to_the_file(page: Any, tmp_path: Path) -> None:
    assert not labels(page).any()
    before = page.evaluate(COLOUR, page.evaluate(PLACE, [13, 10]))
    clicked(page, 10, 10)
    mask = labels(page)
    y, x = np.nonzero(mask)
    assert (abs(x.mean() - 10), abs(y.mean() - 10)) == pytest.approx((0, 0), abs=1)
    after = page.evaluate(COLOUR, page.evaluate(PLACE, [13, 10]))
    assert after != before  # and it is drawn there
    clicked(page, 30, 30, button="right")
    assert [p["foreground"] for p in page.evaluate("prompts")] == [True, False]
    assert np.array_equal(labels(page), mask)
    box, corners = page.locator("#main").bounding_box(), [page.evaluate(PLACE, c) for c in ([20, 5], [30, 15])]
    page.mouse.move(box["x"] + corners[0][0], box["y"] + corners[0][1])
    page.mouse.down()
    page.mouse.move(box["x"] + corners[1][0], box["y"] + corners[1][1], steps=4)
    with page.expect_response("**/api/mask"):
        page.mouse.up()
    settle(page)
    assert labels(page)[10, 25] == 1
    assert "pixels" in page.inner_text("#areas")
    with page.expect_response("**/api/mask"):
        page.click("#undo")
    settle(page)
    assert np.array_equal(labels(page), mask)
    with page.expect_response("**/api/open"):
        page.click("#next")  # which saves
    until(page, "image.case === 1")
    assert np.array_equal(read(tmp_path / "out" / "case_0.png"), mask)
    assert len(record(tmp_path / "out")["cases"]["case_0"]) == 2
    assert "✓ case_0" in page.inner_text("#cases")
    page.keyboard.press("p")
    until(page, "image.case === 0 && prompts.length === 2")


def test_by_keyboard_alone_and_without_barriers(page: Any, tmp_path: Path) -> None:
    page.focus("#main")
    for key in ("ArrowLeft", "Shift+ArrowUp"):
        page.keyboard.press(key)
    with page.expect_response("**/api/mask"):
        page.keyboard.press("Enter")
    settle(page)
    assert page.evaluate("prompts") == [{"point": [17, 10], "foreground": True, "class": "tumour"}]
    for keys in ("x", "Shift+ArrowDown", "ArrowRight"):
        page.keyboard.press(keys)
    with page.expect_response("**/api/mask"):
        page.keyboard.press("x")
    settle(page)
    assert page.evaluate("prompts[1].box") == [17, 10, 18, 20]
    with page.expect_response("**/api/mask"):
        page.keyboard.press("v")
    until(page, "fetched.get(z).masks.without")
    with page.expect_response("**/api/save"):
        page.keyboard.press("s")
    assert (tmp_path / "out" / "case_0.png").is_file()
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_second_browser_sees_nothing(page: Any) -> None:
    base = page.address.partition("?")[0]
    assert page.other.goto(base).status == 403
    assert "canvas" not in page.other.content()
    assert "token" not in page.url  # nor does the address bar keep it
    foreign = f"fetch('{base}api/state', {{method: 'POST', headers: {{'X-Nnunet-Ext': '1'}}, body: '{{}}'}})"
    assert page.other.evaluate(f"{foreign}.then(r => r.status)") == 403


def test_what_goes_wrong_is_said_and_nothing_is_lost(page: Any) -> None:
    clicked(page, 10, 10)
    with page.expect_response("**/api/mask"):
        page.evaluate("change([...prompts, {point: [1, 1], class: 'cyst'}])")
    until(page, "document.getElementById('status').className === 'alarm'")
    assert "must be one of tumour" in page.inner_text("#status")
    assert len(page.evaluate("prompts")) == 1
