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
    ("wording", "vain"), [(None, "(in vain)"), ("lang_agent.envs.wordings:french", "(en vain)")]
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


PLACE = r"(\d+ (?:left|right|forward|behind)(?: \d+ (?:forward|behind))?)"


def line_of(prompt, begins):
    found = re.search(rf"^{begins}: (.*)$", prompt, re.MULTILINE)
    return found[1] if found else ""


def test_what_lies_elsewhere_is_told_by_a_door_of_this_room_by_which_the_expert_goes():
    told, gone = 0, 0
    for seed in range(8):
        for (prompt, info), (after, _) in pairwise(expert_walk(make("GoTo"), seed)):
            ways = re.findall(rf" {PLACE} and on", line_of(prompt, "Elsewhere"))
            assert {*ways} <= {*re.findall(rf"door {PLACE}", line_of(prompt, "Doors"))}
            assert " and on" not in line_of(prompt, "Here")
            told += len(ways)
            name = re.split(r" (?:a|the) ", info["mission"])[1]
            if f"{name} 1 forward and on" in prompt and name not in line_of(prompt, "Here"):
                assert line_of(after, "Did").split(", ")[-1] in ("go forward", "toggle")
                gone += 1
    assert told > 100
    assert gone > 2


def test_the_expert_goes_to_what_is_told_first_of_the_unexplored():
    through = 0
    for seed in range(8):
        for (prompt, info), (after, _) in pairwise(expert_walk(make("GoTo"), seed)):
            name = re.split(r" (?:a|the) ", info["mission"])[1]
            met = any(name in line_of(prompt, line) for line in ("Elsewhere", "Here"))
            first = re.search(rf"unexplored {PLACE} and on", prompt)
            if met or not first or "unexplored" in line_of(prompt, "Here"):
                continue
            assert first[1] in re.findall(rf"door {PLACE}", line_of(prompt, "Doors"))
            if first[1] == "1 forward":
                assert line_of(after, "Did").split(", ")[-1] in ("go forward", "toggle")
                through += 1
    assert through > 10


def test_what_stands_before_a_door_is_told_before_it_is_taken_away():
    taken = 0
    for seed in range(20):
        for (prompt, info), (after, _) in pairwise(expert_walk(make("UnblockPickup"), seed)):
            ahead = re.search(r"(\w+ \w+) 1 forward(?:,|$)", line_of(prompt, "Here"))
            picks = line_of(after, "Did").split(", ")[-1] == "pick up"
            if picks and ahead and ahead[1].split()[-1] not in info["mission"]:
                assert "1 forward" in line_of(prompt, "In the way").split(", ")
                taken += 1
    assert taken > 2


def test_of_what_is_alike_in_one_way_one_is_told():
    for prompt, _ in expert_walk(make("GoTo"), 3):
        for line in prompt.splitlines():
            if line.startswith("Elsewhere: "):
                parts = line.removeprefix("Elsewhere: ").split(", ")
                assert len(parts) == len(set(parts))


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


def test_which_keys_fit_a_locked_door_is_told_unless_keys_go_by_another_name():
    prompts = [prompt for prompt, _ in expert_walk(make("UnlockLocalDist"), 1)]
    told = 0
    for prompt in prompts:
        door = re.search(r"(?:locked (\w+) door|(\w+) door locked)", prompt)
        if door is None:
            assert "fit" not in prompt
            continue
        color = door[1] or door[2]
        assert (door[2] is None) == ("which fits" in prompt)  # what bars the way is told first
        if carried := re.search(r"You carry a (\w+) key(, which fits)?\n", prompt):
            assert bool(carried[2]) == (carried[1] == color)
        fitting = re.search(r"Keys that fit: (.*)\n", prompt)
        if carried and carried[2]:
            assert fitting is None
        elif key := re.search(rf"{color} key (\d[^,\n]*)", prompt):
            assert fitting
            assert fitting[1] == key[1]
            told += 1
    assert told
    assert any(", which fits" in prompt for prompt in prompts)
    assert "fit" not in prompts[-1]
    hidden = make("UnlockLocalDist", wording=lambda draw: Wording(words={"key": "dax"}))
    said = [prompt for prompt, _ in expert_walk(hidden, 1)]
    assert not any("Keys that fit" in prompt or "which fits" in prompt for prompt in said)
    for prompt in said:
        if (tried := line_of(prompt, "What may fit")) and "Tried" not in prompt:
            (color,) = re.findall(r"(\w+) door", line_of(prompt, "Doors"))
            things = re.findall(rf"{color} (?:ball|box|dax) {PLACE}", line_of(prompt, "Here"))
            assert tried.split(", ") == things
    assert any("What may fit" in prompt for prompt in said)
    assert any("which may fit" in prompt for prompt in said)


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

    env = lang_agent.make("BabyAI-GoToLocal-v0", renderer="rooms", prompt="rooms", wording=french)
    prompt, _ = walked(env, ["tourne à gauche"] * 4, 3)
    assert "Ici: mur" in prompt
    assert not re.search(r"\b(wall|ball|box|key|left|right|forward|behind|Here)\b", prompt)


@pytest.mark.parametrize("level", ["BossLevel", "SynthSeq"])
def test_prompts_fit_the_recipes_context(level):
    env = make(level)
    longest = max(len(prompt.split()) for prompt, _ in expert_walk(env, 2, 150, noise=0.2))
    assert longest < 350


def test_doors_keep_their_order_however_one_turns():
    """Those found last come first, wherever the agent faces."""
    told = 0
    for seed in range(8):
        env = make("GoTo")
        for _ in expert_walk(env, seed, until=40):
            pass
        turns = [env.step("turn left")[0] for _ in range(8)][4:]
        orders = [re.findall(r"(\w+ \w+ door)", line_of(prompt, "Doors")) for prompt in turns]
        assert orders.count(orders[0]) == 4
        told += len(orders[0]) > 1
    assert told > 3
