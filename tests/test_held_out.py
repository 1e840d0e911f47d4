"""What is held out of training stands in one list: training draws none of it, the suite does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import yaml
from lang_agent.envs import held_out, wordings

import lang_agent
from lang_agent.evaluation.tasks import load_suite, read_task

FOR_TRAINING = ("varied", "phrased")
RECIPES = sorted(Path(__file__).parent.parent.joinpath("recipes").glob("*.yaml"))


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_wordings_for_training_invent_nothing_that_is_held_out():
    invented: set[str] = set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        invented |= {*wordings.varied(rng).words.values()}
        said = wordings.phrased(rng).actions.values()
        assert not set(said) & set(held_out.PHRASES)
        invented |= {word for phrase in said for word in phrase.split()} - {"left", "right"}
    assert len(invented) > 1000
    assert not invented & held_out.WORDS


def test_a_word_that_is_held_out_is_drawn_anew(monkeypatch):
    first = wordings._invented(np.random.default_rng(0))
    monkeypatch.setattr(held_out, "WORDS", {first})
    assert wordings._invented(np.random.default_rng(0)) != first


def test_the_suite_says_what_is_held_out():
    found: set[str] = set()
    for task in load_suite("language").tasks:
        name = str(task.arguments.get("wording", "")).partition(":")[2]
        if name in ("new_nouns", "invented", "synonyms", "paraphrased"):
            wording = getattr(wordings, name)(np.random.default_rng(0))
            found |= words_of(" ".join((*wording.words.values(), *wording.actions.values())))
            if name == "paraphrased":
                found |= words_of(wording.mission("go to the ball"))
    assert {*held_out.NOUNS, *held_out.INVENTED_NOUNS, *held_out.INVENTED_COLORS} <= found
    assert {word for phrase in held_out.PHRASES for word in phrase.split()} <= found
    assert {"walk", "close", "find"} & found  # one of the three is drawn
    assert found - held_out.WORDS <= words_of("the ball key then go pick up")


def test_the_suite_tests_pairs_and_the_composition_that_are_held_out():
    tasks = {task.name: task for task in load_suite("language").tasks}
    assert tasks["new composition"].arguments["task"] == held_out.COMPOSITION
    for name in ("unseen pairs", "new composition"):
        env = lang_agent.make(tasks[name].env, **tasks[name].arguments)
        for seed in range(10):
            _, info = env.reset(seed=seed)
            assert any(" ".join(pair) in info["mission"] for pair in held_out.PAIRS)


def test_recipes_train_on_nothing_that_is_held_out():
    seen = 0
    for recipe in RECIPES:
        text = yaml.safe_load(recipe.read_text())
        for part in (*text.get("mixture", ()), *filter(None, [text.get("env")])):
            arguments = read_task(str(part)).arguments
            wording = str(arguments.get("wording", "")).partition(":")[2]
            assert wording in ("", *FOR_TRAINING, "french"), recipe
            assert arguments.get("split", "train") == "train", recipe
            assert arguments.get("task") != held_out.COMPOSITION, recipe
            seen += bool(wording)
    assert seen > 5
