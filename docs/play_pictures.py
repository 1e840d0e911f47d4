"""Makes the pictures of docs/play.md: play.svg and watch.svg, as a terminal shows them, and
play.gif, a session from key to key, which Chromium draws.

.venv/bin/python docs/play_pictures.py
"""

import asyncio
import io
import re
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import lang_agent
from lang_agent.agents.make import make_agent
from lang_agent.cli.play.app import PlayApp

HERE = Path(__file__).parent
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Links to fonts of a server: a picture in the docs asks nobody."""


async def picture(app: PlayApp, keys: str, file: Path) -> None:
    """Press keys, each once the app waits for one, and save what stands on the screen."""
    app.playing = False
    async with app.run_test(size=(80, 24)) as pilot:
        for key in [*keys.split(), ""]:
            while not app._waits:
                await pilot.pause(0.02)
            await pilot.pause()
            if key:
                await pilot.press(key)
        await pilot.pause(0.2)
        file.write_text(FONTS.sub("", app.export_screenshot()), encoding="utf-8")
        app.action_leave()
    app.session.close()


async def session(app: PlayApp, keys: str) -> list[str]:
    """What stands on the screen before each key, and after the last."""
    app.playing = False
    found = []
    async with app.run_test(size=(80, 24)) as pilot:
        for key in [*keys.split(), ""]:
            while not app._waits:
                await pilot.pause(0.02)
            await pilot.pause(0.1)
            found.append(FONTS.sub("", app.export_screenshot()))
            if key:
                await pilot.press(key)
        app.action_leave()
    app.session.close()
    return found


def film(screens: list[str], file: Path) -> None:
    """The screens as a GIF."""
    frames = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 760, "height": 480})
        for screen in screens:
            page.set_content(f"<style>body{{margin:0}}svg{{width:760px}}</style>{screen}")
            frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        browser.close()
    palette = frames[0].quantize(128)  # one for all, so that little changes
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [1200] * (len(frames) - 1) + [3000]
    frames[0].save(
        file, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True
    )


async def main() -> None:
    person = PlayApp(lang_agent.make("BabyAI-GoToLocal-v0"), None, 3)
    await picture(person, "2 3 3 slash t u r n space r", HERE / "play.svg")
    # The words that the policy was trained in.
    policy = lang_agent.load_policy("babyai")
    env = lang_agent.make("BabyAI-MixedLocal-v0", like=policy, num_dists=8)
    watched = PlayApp(env, make_agent("babyai", 1), 3)
    await picture(watched, "n n n n n", HERE / "watch.svg")
    # Watched for some steps, looked back, taken over with a choice of one's own, handed back.
    env = lang_agent.make("BabyAI-MixedLocal-v0", like=policy, num_dists=8)
    screens = await session(
        PlayApp(env, make_agent("babyai", 1), 3), "n n n n p p t 2 1 t n n n n n n"
    )
    await asyncio.to_thread(film, screens, HERE / "play.gif")


if __name__ == "__main__":
    asyncio.run(main())
