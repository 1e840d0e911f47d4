"""The renderer by rooms: what is remembered of an episode, in words."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest

import lang_agent
from lang_agent.language_env import language_env
from lang_agent.text_env.wording import Wording


def walked(env, actions, seed):
    prompt, info = env.reset(seed=seed)
    for action in actions:
        prompt, *_, info = env.step(action)
    return prompt, info


def expert_walk(env, seed, until=10**9, noise=0.0):
    draw, action = random.Random(seed), None
    prompt, info = env.reset(seed=seed)
    yield prompt, info
    for _ in range(until):
        wanted = language_env(env).expert_action(action)
        action = draw.choice(info["actions"]) if draw.random() < noise else wanted
        prompt, _, terminated, truncated, info = env.step(action)
        yield prompt, info
        if terminated or truncated:
            return


def make(level, **options):
    return lang_agent.make(f"BabyAI-{level}-v0", renderer="rooms", prompt="rooms", **options)


def places(prompt):
    """Every thing with its place, of a prompt's lines."""
    return {
        found.group(0)
        for found in re.finditer(r"(?:red|green|blue|purple|yellow|grey) \w+(?: \d+ \w+)+", prompt)
    }


def test_things_stay_where_they_were_when_one_turns_around():
    """Four turns see all around and end as they began: what is told is the same and more."""
    env = make("GoToLocal")
    first = env.reset(seed=3)[0]
    prompt, _ = walked(env, ["turn left"] * 4, 3)
    assert places(first) <= places(prompt)
    assert len(places(prompt)) == 7  # an eighth stands behind another
    assert "Did: turn left, turn left, turn left" in prompt


@pytest.mark.parametrize(
    ("wording", "vain"), [(None, "in vain"), ("lang_agent.envs.wordings:french", "en vain")]
)
def test_what_changed_nothing_was_done_in_vain(wording, vain):
    env = make("GoToLocal", wording=wording)
    _, info = env.reset(seed=3)
    left, drop = info["actions"][0], info["actions"][4]
    prompt, _ = walked(env, [left, drop, drop, left], 3)
    (did,) = [line for line in prompt.splitlines() if vain in line]
    assert did.endswith(f": {drop} {vain}, {drop} {vain}, {left}")


def test_places_are_told_from_where_one_stands():
    env = make("GoToLocal")
    world = language_env(env).env.unwrapped
    for seed in range(10):
        for prompt, _ in expert_walk(env, seed, 12, noise=0.3):
            told = [
                (f"{cell.color} {cell.type}", *offset(world, x, y))
                for x in range(world.width)
                for y in range(world.height)
                if (cell := world.grid.get(x, y)) and cell.type in ("ball", "box", "key")
            ]
            wanted = {" ".join(map(str, filter(None, one))) for one in told}
            here = next(line for line in prompt.splitlines() if line.startswith("Here"))
            found = {part for part in here.split(": ")[1].split(", ") if part.split()[0] in COLORS}
            assert found <= wanted


COLORS = ("red", "green", "blue", "purple", "yellow", "grey")


def offset(world, x, y):
    fx, fy = world.dir_vec
    dx, dy = x - world.agent_pos[0], y - world.agent_pos[1]
    right, forward = dy * fx - dx * fy, dx * fx + dy * fy
    side = f"{abs(right)} {'right' if right > 0 else 'left'}" if right else ""
    ahead = f"{abs(forward)} {'forward' if forward > 0 else 'behind'}" if forward else ""
    return side, ahead


def test_rooms_keep_their_numbers_and_doors_say_what_they_join():
    env = make("GoTo")
    seen, joined = {}, set()
    for prompt, _ in expert_walk(env, 4):
        for line in prompt.splitlines():
            if found := re.match(r"Room (\d+): (.*)", line):
                names = {part.rsplit(" ", 2)[0] for part in found[2].split(", ")}
                seen.setdefault(found[1], set()).update(names)
        joined |= set(re.findall(r"\d+ to \d+", prompt))
    assert len(seen) > 1
    assert "1 to 2" in joined


def test_a_goal_loses_the_parts_that_are_done():
    """What is left of one is what it began with, less what the expert did, part by part."""
    env, between = make("BossLevel"), re.compile(r", then | after you | and ")
    seen = set()
    for seed in range(30):
        walk = list(expert_walk(env, seed))
        goals = [prompt.splitlines()[-1].removesuffix(": ") for prompt, _ in walk[:-1]]
        distinct = list(dict.fromkeys(goals))
        assert len(distinct) <= len(between.split(goals[0])), (seed, distinct)
        for whole, rest in pairwise(distinct):
            parts, left = between.split(whole), between.split(rest)
            assert len(left) < len(parts)
            assert set(left) < set(parts) or len(set(parts)) < len(parts)
            if " after you " in whole and " after you " not in rest:
                assert rest == whole.split(" after you ")[0]  # the second half comes first
                seen.add("after")
            if ", then " in whole and ", then " not in rest:
                assert rest == whole.split(", then ")[1]
                seen.add("then")
            if " and " in whole and (", then " in rest or " after you " in rest):
                seen.add("and in a half")
    assert seen == {"after", "then", "and in a half"}


def test_what_is_carried_and_what_was_tried_on_a_door():
    env = make("UnlockLocal")
    said = [prompt for prompt, _ in expert_walk(env, 1)]
    assert any(re.search(r"^You carry a \w+ key$", prompt, re.MULTILINE) for prompt in said)
    assert not any("Tried" in prompt for prompt in said)


def test_sides_are_those_of_the_beginning_in_the_words_of_the_mission():
    env = make("PickupLoc")
    for seed in range(40):
        prompt, info = env.reset(seed=seed)
        if "on your left" in info["mission"]:
            break
    told = re.findall(r"(\w+ \w+)( on your left)? (\d left)?", prompt.split("Did:")[0])
    things = [(name, said, now) for name, said, now in told if re.search("ball|box|key", name)]
    assert {bool(said) for _, said, _ in things} == {True, False}
    assert all(bool(said) == bool(now) for _, said, now in things)
    there = sorted(name for name, said, _ in things if said)
    for _ in range(4):
        prompt = env.step("turn right")[0]
        assert not set(there) - set(re.findall(r"(\w+ \w+) on your left", prompt))
    assert " your " not in make("GoToLocal").reset(seed=0)[0]


def test_a_thing_with_its_side_is_one_token_in_the_goal_and_in_what_is_seen():
    prompts = [make("PickupLoc").reset(seed=seed)[0] for seed in range(200)]
    policy = lang_agent.LanguagePolicy.from_scratch("pico", seed=0, texts=prompts)
    asked = re.compile(r"\bthe (\w+ \w+ (?:on your|in front of|behind) \w+): $")
    found = 0
    for prompt in prompts:
        goal = asked.search(prompt)
        if goal and prompt.count(goal[1]) > 1:
            words = [policy.tokenizer.decode([token]) for token in policy.encode_prompt(prompt)]
            assert words[-2:] == [f" {goal[1]}", ":"]
            assert f" {goal[1]}" in words[:-2]
            found += 1
    assert found > 5


def test_a_locked_door_is_told_with_its_key_unless_keys_go_by_another_name():
    env = make("UnlockLocal")
    doors = [
        re.search(r"(\w+) key opens locked (\w+) door", prompt) for prompt, _ in expert_walk(env, 1)
    ]
    assert any(doors)
    assert not doors[-1]
    assert all(door[1] == door[2] for door in doors if door)
    hidden = make("UnlockLocal", wording=lambda draw: Wording(words={"key": "dax"}))
    said = [prompt for prompt, _ in expert_walk(hidden, 1)]
    assert any("locked" in prompt for prompt in said)
    assert not any("opens" in prompt for prompt in said)


def test_nothing_is_told_that_was_not_seen():
    """Two worlds that differ where nobody has looked read alike."""
    one, other = make("GoTo"), make("GoTo")
    one.reset(seed=8)
    other.reset(seed=8)
    world = language_env(other).env.unwrapped
    visible = world.gen_obs_grid()[1]
    removed = 0
    for x in range(world.width):
        for y in range(world.height):
            cell = world.grid.get(x, y)
            if cell is None or cell.type not in ("ball", "box", "key"):
                continue
            if not (world.in_view(x, y) and visible[world.relative_coords(x, y)]):
                world.grid.set(x, y, None)
                removed += 1
    assert removed > 5
    prompts = [env.step("drop")[0] for env in (one, other)]  # which shows nothing new
    assert prompts[0] == prompts[1]


def test_in_french():
    from lang_agent.envs.wordings import french

    env = lang_agent.make(
        "BabyAI-GoToLocal-v0", renderer="rooms_fr", prompt="rooms", wording=french
    )
    prompt, _ = walked(env, ["tourne à gauche"] * 4, 3)
    assert "Ici, salle 1: mur" in prompt
    assert not re.search(r"\b(wall|ball|box|key|left|right|forward|behind|Room)\b", prompt)


@pytest.mark.parametrize("level", ["BossLevel", "SynthSeq"])
def test_prompts_fit_the_recipes_context(level):
    env = make(level)
    longest = max(len(prompt.split()) for prompt, _ in expert_walk(env, 2, 150, noise=0.2))
    assert longest < 350


def test_doors_are_told_in_the_order_in_which_they_were_found_the_last_first():
    """Wherever the agent stands: a door keeps its place among the others."""
    for seed in range(3):
        found = []
        for prompt, _ in expert_walk(make("GoTo"), seed, until=60):
            line = next((line for line in prompt.split("\n") if line.startswith("Doors")), "")
            told = re.findall(r"(?:open|closed) (\w+) door", line)[::-1]
            if "doorway" not in prompt:  # whose own door is not told
                assert told[: len(found)] == found
                found = told
        assert len(found) > 2
