"""The report as a person meets it: in a real browser, from the disk, with every control."""

from __future__ import annotations

import json
import os
import shutil
from importlib.resources import files

import pytest
from playwright.sync_api import expect, sync_playwright
from test_report import ROOM, Reader, play

from lang_agent.agents.scripted import RandomAgent
from lang_agent.cli import main as cli
from lang_agent.episode import Agent, Decision, TokenTrace
from lang_agent.evaluation import trajectories
from lang_agent.evaluation.tasks import Task

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if not CHROMIUM and not os.environ.get("CI"):
    pytest.skip("needs Chromium (apt install chromium)", allow_module_level=True)
FEW = {"max_steps": 8}
TASKS = (Task(ROOM, "near", FEW), Task("BabyAI-GoToLocal-v0", "far", FEW))
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SCRIPT = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">[b]x[/b]"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the reports that the tests look at."""
    folder = tmp_path_factory.mktemp("reports")
    play(folder / "ours", Reader(), episodes=4, tasks=TASKS)
    random = RandomAgent()
    random.about = {"name": "random"}
    play(folder / "random", random, episodes=4, tasks=TASKS)
    play(folder / "text", Writer(), episodes=2, tasks=[Task("TextGeneration-v0", "writing")])
    play(folder / "one", Reader(), episodes=1)
    cli.run(["train", "--env", ROOM, "--steps", "40", "--rollout-steps", "16", "--envs", "2",
             "--eval-episodes", "2", "--snapshot-every", "1", "--snapshot-episodes", "2",
             "--env-args", "max_steps=4", "--out", str(folder / "run")])  # fmt: skip
    for name, parts in REPORTS.items():
        cli.run(["report", *(str(folder / part) for part in parts), "--out",
                 str(folder / f"{name}.html")])  # fmt: skip
    return folder


REPORTS = {
    "two": ("ours", "random"), "text": ("text",), "one": ("one",), "run": ("run",),
    "all": ("ours", "random", "text", "one", "run"),
}  # fmt: skip


class Writer(Agent):
    """A model that writes markup, token by token."""

    about = {"name": SCRIPT}  # noqa: RUF012

    def act(self, slots, observations):
        trace = TokenTrace([1, 2], 1, [5, 6], [-0.01, -4.0], 0.5)
        return [Decision(SCRIPT, tokens=trace) for _ in observations]

    def token_texts(self, token_ids):
        return [SCRIPT[:20], SCRIPT[20:]]


@pytest.fixture
def view(browser, made):
    """Opens a report; at the end, nothing was asked of a network and nothing went wrong."""
    contexts, wrong = [], []

    def open_page(name, hash_="", **options):
        context = browser.new_context(**{"viewport": DESKTOP, "color_scheme": "light", **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.on("request", lambda asked: asked.url.startswith(("file:", "data:"))
                or wrong.append(asked.url))  # fmt: skip
        page.goto(f"file://{made}/{name}.html{hash_}")
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def position(page):
    return page.text_content("#position")


def options(page, name):
    return page.eval_on_selector_all(f"#{name} option", "all => all.map(one => one.value)")


def stored(made, name):
    return [json.loads(line) for line in (made / name / "trajectories.jsonl").open()]


def outcomes(made, name):
    return [json.loads(line) for line in (made / name / "episodes.jsonl").open()]


def test_a_step_shows_what_was_read_might_have_been_said_and_was(view, made):
    page = view("two")
    assert len(options(page, "list")) == 8
    episode = stored(made, "ours")[0]
    texts = trajectories.prompts(episode)
    for number, step in enumerate(episode["steps"]):
        assert position(page) == f"step {number + 1} of {len(texts)}"
        assert page.text_content(".prompt") == texts[number]
        marked = "".join(page.locator(".prompt mark").all_text_contents())
        assert marked == (step["new"] if step["kept"] else "")
        bars = page.locator(".choices .bars li")
        for row, phrase, chance in zip(
            bars.all(), step["actions"], step["probabilities"], strict=True
        ):
            text = row.text_content()
            assert phrase in text
            assert f"{chance:.3f}" in text
            assert ("▸" in text) == (phrase == step["action"])
            assert ("(expert)" in text) == (phrase == step["expert"])
            width = row.locator(".fill").evaluate("one => one.style.width")
            assert float(width.rstrip("%")) == pytest.approx(100 * chance)
        facts = page.text_content(".facts")
        assert step["action"] in facts
        assert f"{step['reward']:.3f}" in facts
        page.click("#next")
    assert position(page) == f"end, {len(texts)} steps"
    assert "The episode is over" in page.text_content(".pane")


def test_the_frame_is_the_grid_and_follows_the_agent(view, made):
    page = view("two")
    episode = stored(made, "ours")[0]
    for number, step in enumerate(episode["steps"]):
        x, y, _ = step["cells"]["agent"]
        size = episode["steps"][0]["cells"]["size"]
        assert page.evaluate("[panes.querySelector('canvas').width / 32, "
                             "panes.querySelector('canvas').height / 32]") == size  # fmt: skip
        red = page.evaluate(
            "([x, y]) => [...panes.querySelector('canvas').getContext('2d')"
            ".getImageData(x * 32 + 16, y * 32 + 16, 1, 1).data]", [x, y],
        )  # fmt: skip
        assert red[0] > 200
        assert red[1] < 100
        said = page.get_attribute("canvas", "aria-label")
        assert f"The agent is at {x}, {y}, facing" in said
        page.keyboard.press("ArrowRight")
        del number
    cells = episode["steps"][0]["cells"]["grid"]
    things = {5: "key", 6: "ball", 7: "box"}
    (thing,) = [things[code] for code in cells[::3] if code in things]
    assert f" {thing} at " in said


def test_every_control(view):
    page = view("two")
    page.click("#last")
    end = position(page)
    assert end.startswith("end")
    page.click("#back")
    assert position(page).startswith("step")
    page.click("#first")
    assert position(page).startswith("step 1 ")
    page.select_option("#speed", "250")
    page.click("#play")
    assert page.text_content("#play") == "Pause"
    expect(page.locator("#position")).to_contain_text("end")
    expect(page.locator("#play")).to_have_text("Play")
    page.click("#play")  # from the end: from the beginning
    page.click("#play")
    assert page.text_content("#play") == "Play"
    assert not position(page).startswith("end")
    page.fill("#step", "2")
    assert position(page).startswith("step 3 ")
    theme = page.text_content("#theme")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.text_content("#theme") != theme
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != colour


def test_filters_and_two_agents_on_one_seed(view, made):
    page = view("two")
    mine, theirs = (
        {
            (r["task"], r["seed"]): r
            for r in map(json.loads, (made / name / "episodes.jsonl").open())
        }
        for name in ("ours", "random")
    )
    page.select_option("#task", "far")
    assert options(page, "list") == [f"far/{seed}" for task, seed in mine if task == "far"]
    page.select_option("#task", "")
    page.select_option("#outcome", "failure")
    failed = [f"{t}/{s}" for (t, s), r in mine.items() if not r["success"]]
    assert options(page, "list") == failed
    page.select_option("#outcome", "success")
    assert len(options(page, "list")) == 8 - len(failed)
    page.select_option("#outcome", "error")
    assert options(page, "list") == []
    assert page.is_hidden("#player")
    page.select_option("#outcome", "")
    page.check("#invalid")
    assert options(page, "list") == []
    page.uncheck("#invalid")
    assert page.is_disabled("#differ")
    page.select_option("#beside", "1")
    assert page.locator(".pane").count() == 2
    page.check("#differ")
    apart = [f"{t}/{s}" for (t, s), r in mine.items() if r["success"] != theirs[t, s]["success"]]
    assert apart
    assert options(page, "list") == apart
    for place in apart:
        page.select_option("#list", place)
        missions = page.locator(".pane > p").all_text_contents()
        assert missions[0].split("”")[0] == missions[1].split("”")[0]  # one seed, one goal
        assert {"success" in text for text in missions} == {True, False}
    page.select_option("#agent", "1")
    assert page.input_value("#beside") == ""  # nobody stands beside himself
    assert page.is_disabled("#differ")


def test_a_link_leads_to_one_step_of_one_episode(view):
    page = view("two")
    page.select_option("#beside", "1")
    page.select_option("#list", index=5)
    for _ in range(3):
        page.click("#next")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#link")
    expect(page.locator("#link")).to_have_text("Copied")
    link = page.evaluate("location.href")
    assert page.evaluate("navigator.clipboard.readText()") == link
    other = view("two", "#" + link.partition("#")[2])
    assert position(other) == position(page)
    assert other.text_content("#panes") == page.text_content("#panes")
    wrong = view("two", "#agent=7&task=near&seed=3&step=99")
    assert position(wrong).startswith("step 1 ")


def test_by_keyboard_alone(view):
    page = view("two")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "episodes"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id"))
        visible = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert visible != "none", page.evaluate("document.activeElement.outerHTML")
        if "link" in seen:
            break
    filters = {"agent", "beside", "task", "outcome", "invalid", "list"}
    assert seen >= filters | {"first", "back", "play", "next", "last", "step", "speed", "link"}
    page.focus("#next")
    page.keyboard.press("Enter")
    assert position(page).startswith("step 2 ")
    page.keyboard.press("End")
    assert position(page).startswith("end")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert position(page).startswith("step 1 ")
    assert "said" in page.text_content("#said").lower()  # what a screen reader says
    before = page.input_value("#list")
    page.keyboard.press("]")
    assert page.input_value("#list") != before
    page.keyboard.press("[")
    assert page.input_value("#list") == before
    page.focus("#list")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#list") != before
    page.focus("#panes .prompt")
    page.keyboard.press("Space")
    assert page.text_content("#play") == "Pause"
    page.keyboard.press("Space")


@pytest.mark.parametrize("name", [*REPORTS])
def test_on_a_phone_nothing_is_cut_off(view, name):
    page = view(name, viewport=PHONE, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for control in page.locator("button, select, canvas, .prompt").all():
        box = control.bounding_box()
        if box and box["width"]:
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE["width"]
    page.tap("#next")
    assert not position(page).startswith("step 1 ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["all", "two", "run"])
def test_axe_finds_nothing_serious(view, name, scheme):
    page = view(name, color_scheme=scheme)
    if name == "two":
        page.select_option("#beside", "1")
    for details in page.locator("details").all():
        details.evaluate("one => { one.open = true; }")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, dark[4:-1].split(","))) < 200) == (scheme == "dark")
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    bad = [
        (one["id"], one["impact"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical", "moderate")
    ]
    assert not bad


def test_what_a_model_writes_is_shown_and_never_run(view):
    page = view("text")
    assert page.text_content(".written") == SCRIPT
    assert SCRIPT in page.text_content(".pane h3")
    assert page.title() != "run"
    assert page.locator("main img, main script").count() == 0
    kinds = page.locator(".written span").evaluate_all("all => all.map(one => one.className)")
    assert kinds == ["sure", "rare"]
    assert page.locator("canvas").count() == 0


def test_a_run_shows_one_seed_from_update_to_update(view):
    page = view("run")
    labels = page.locator("#agent option").all_text_contents()
    assert labels[:2] == ["run, update 0", "run, update 1"]
    page.select_option("#beside", "1")
    assert page.locator(".pane").count() == 2
    assert page.locator("section .charts svg").count() == 2


def test_a_page_of_nothing_and_one_of_two_hundred_episodes(browser, made):
    play(made / "none", Reader(), episodes=1)
    for name in ("episodes.jsonl", "trajectories.jsonl"):
        (made / "none" / name).write_text("")
    play(made / "many", Reader(), episodes=200)
    page = browser.new_page(viewport=DESKTOP)
    for name in ("none", "many"):
        cli.run(["report", str(made / name), "--out", str(made / f"{name}.html")])
        page.goto(f"file://{made}/{name}.html")
        page.wait_for_selector("body[data-ready]")
        if name == "none":
            assert "There are no episodes to show" in page.text_content("#episodes")
            assert page.locator("#filters").count() == 0
    assert page.text_content("#count") == "200 episodes"
    page.select_option("#list", index=199)
    assert "seed" in page.text_content("#list option:checked")
    assert position(page).startswith("step 1 ")
    page.close()


def test_a_page_made_anew_while_it_is_watched_keeps_its_step(browser, made):
    from lang_agent.report.page import write_report
    from lang_agent.report.sources import read_sources

    agents, runs = read_sources([made / "ours"])
    write_report(made / "watched.html", agents, runs, most_episodes=9, refresh=1)
    page = browser.new_page()
    page.goto(f"file://{made}/watched.html#agent=0&task=far&seed=1000000002&step=1")
    page.wait_for_selector("body[data-ready]")
    page.evaluate("document.body.dataset.old = 'yes'")
    write_report(made / "watched.html", agents, runs, most_episodes=9)
    page.wait_for_selector("body[data-ready]:not([data-old])", timeout=15_000)
    assert position(page).startswith("step 2 ")
    assert page.input_value("#list") == "far/1000000002"
    page.close()
