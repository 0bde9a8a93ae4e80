"""Make docs/images/click.png: run `nnunet_ext click --demo` once, then this, in the same folder.

It needs Playwright and a Chromium: python docs/images/make_click_picture.py /usr/bin/chromium
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from nnunet_ext.app.cases import find_cases
from nnunet_ext.app.demo import prepare
from nnunet_ext.app.server import PageServer
from nnunet_ext.app.workspace import Workspace
from nnunet_ext.inference.session import Session


def main(chromium: str) -> None:
    """Click on the first phantom, and take the picture."""
    model, images = prepare(Path("click_demo"))
    workspace = Workspace(find_cases(images), session=Session(model))
    with PageServer(workspace) as server, sync_playwright() as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 640}, color_scheme="dark")
        page.goto(server.url)
        page.wait_for_timeout(3000)
        box = page.locator("#main").bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.45)
        page.check("#compare")
        page.wait_for_timeout(2000)
        page.screenshot(path=Path(__file__).with_name("click.png"))
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
