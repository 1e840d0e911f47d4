"""Make the pictures of the page in docs/report.md: evaluations of the policy that ships, their
report, and what a browser shows of it.

python docs/report_pictures.py WORK_FOLDER      # keeps its evaluations there, to go on with
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from lang_agent.cli import main as cli

PICTURES = Path(__file__).parent / "report"


def make(work: Path) -> None:
    play = ["--trajectories", "--out"]
    suite = ["evaluate", "--suite", "balrog-babyai", "--episodes", "40"]
    cli.run([*suite, "--agent", "babyai", *play, str(work / "babyai")])
    cli.run([*suite, "--agent", "random", *play, str(work / "random")])
    cli.run(["report", str(work / "babyai"), str(work / "random"), "--out",
             str(work / "two.html")])  # fmt: skip
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )

        def opened(name: str, hash_: str = "", scheme: str = "light", width: int = 1180) -> Page:
            page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
            page.goto(f"file://{(work / name).resolve()}{hash_}")
            page.wait_for_selector("body[data-ready]")
            return page

        both = "#agent=0&beside=1&task=pick_up_seq_go_to&seed=1000000004&step=5"
        save(opened("two.html"), "summary", ".charts, main > section >> nth=0")
        save(opened("two.html", both, width=1400), "comparison", "#episodes")
        save(opened("two.html", both.replace("beside=1", "beside=")), "episode", "#episodes")
        save(opened("two.html", both, "dark", 1400), "dark", "#episodes")
        save(opened("two.html", both, width=390), "phone", "#player")
        browser.close()


def save(page: Page, name: str, part: str) -> None:
    """A part of the page as a small PNG."""
    picture = Image.open(io.BytesIO(page.locator(part).first.screenshot()))
    picture.convert("RGB").quantize(160).save(PICTURES / f"{name}.png", optimize=True)
    page.close()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
