"""Makes docs/play.svg and docs/watch.svg, the pictures of docs/play.md, as a terminal shows them.

.venv/bin/python docs/play_pictures.py
"""

import asyncio
import re
from pathlib import Path

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


async def main() -> None:
    person = PlayApp(lang_agent.make("BabyAI-GoToLocal-v0"), None, 3)
    await picture(person, "2 3 3 slash t u r n space r", HERE / "play.svg")
    # The words that the policy was trained in.
    env = lang_agent.make("BabyAI-MixedLocal-v0", prompt="recap", num_dists=8)
    watched = PlayApp(env, make_agent("babyai", 1), 3)
    await picture(watched, "n n n n n", HERE / "watch.svg")


if __name__ == "__main__":
    asyncio.run(main())
