"""Take the pictures of MLflow's pages that README and docs show.

    python docs/screenshots.py [ADDRESS] [--target kidney] [--chromium PATH]

It needs a running UI (`make ui`) on a store with a finished retraining, and Chromium. Each picture
is reduced to 256 colours, which keeps it below 200 kB.
"""

from __future__ import annotations

import argparse
import io
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import TimeoutError as PageTimeoutError
from playwright.sync_api import sync_playwright

from oncoshift.registry.views import RETRAININGS, TRAININGS, build_artifact_path, build_run_path, build_view_path

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = Path(__file__).with_name("img")
SETTLE_MS = 4000
"""Time for charts and pictures to be drawn once a page's text is there."""


def list_pages(client: MlflowClient, target: str) -> dict[str, tuple[str, str]]:
    """List the pages by the picture's name: path in the UI, and a text that it shows when ready."""
    experiment = client.get_experiment_by_name("oncoshift").experiment_id
    done = f"tags.`oncoshift.target` = '{target}' and attributes.status = 'FINISHED'"
    run = client.search_runs([experiment], done, order_by=["attributes.start_time DESC"], max_results=1)[0]
    model = f"oncoshift-{target}"
    version = run.data.tags["oncoshift.version"]
    gallery = build_artifact_path(experiment, run.info.run_id, "plots/gallery.html")
    name = run.info.run_name
    return {
        "mlflow-runs": (build_view_path(experiment, RETRAININGS), name),
        "mlflow-epochs": (build_view_path(experiment, TRAININGS, charts=True), "train/source_accuracy"),
        "mlflow-run": (build_run_path(experiment, run.info.run_id), model),
        "mlflow-report": (build_artifact_path(experiment, run.info.run_id, "report.html"), "report.html"),
        "mlflow-gallery": (gallery, "gallery.html"),
        "mlflow-registry": (f"#/models/{model}/versions/{version}?workflowType=machine_learning", name),
    }


def take(page: Page, name: str, path: str, text: str) -> None:
    """Open a page, wait until it shows a text, and save its picture."""
    page.goto("about:blank")  # a change of the fragment alone would keep the page
    page.goto(f"/{path}")
    page.get_by_text(text).first.wait_for()
    close = page.get_by_role("button", name="Close", exact=True)
    with suppress(PageTimeoutError):
        close.first.click(timeout=SETTLE_MS)  # the assistant, which opens on a first visit
    page.wait_for_timeout(SETTLE_MS)
    # Hide where the artifacts lie on this machine.
    page.locator("text=/^Path:/").evaluate_all("found => found.forEach(each => each.style.visibility = 'hidden')")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    file = FOLDER / f"{name}.png"
    picture.quantize(256).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description="Take the pictures of MLflow's pages for the docs.")
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:5000")
    parser.add_argument("--target", default="kidney")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of the browser")
    given = parser.parse_args()
    pages = list_pages(MlflowClient(given.address, given.address), given.target)
    with sync_playwright() as playwright:
        # The sandbox of Chromium cannot start for root, as in a container.
        browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
        page = browser.new_page(base_url=given.address, viewport={"width": 1600, "height": 900})
        page.set_default_timeout(60_000)
        for name, (path, text) in pages.items():
            take(page, name, path, text)
        browser.close()


if __name__ == "__main__":
    main()
