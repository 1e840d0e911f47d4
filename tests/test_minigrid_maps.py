"""Grids in other words: by column and row, whole, and as they are remembered."""

from __future__ import annotations

import random
import re

import pytest
from lang_agent.envs.minigrid import RENDERERS
from lang_agent.envs.minigrid_maps import RememberedMap
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT

import lang_agent
from lang_agent import LangAgentError

LEVELS = ("BabyAI-GoTo-v0", "BabyAI-BossLevel-v0", "MiniGrid-FourRooms-v0",
          "MiniGrid-DoorKey-8x8-v0")  # fmt: skip
PROMPTS = ("transcript", "minimal", "goal_last", "goal_last_doors", "recap", "glam",
           "balrog", "balrog_cot", "balrog_robust", "think")  # fmt: skip
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def walk(env, seed, steps):
    """(info, last action) of random play."""
    draw = random.Random(seed)
    _, info = env.reset(seed=seed)
    yield info, None
    for _ in range(steps):
        action = draw.choice(("turn left", "turn right", "go forward", "go forward", "toggle",
                              "pick up", "drop"))  # fmt: skip
        _, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return
        yield info, action


def grid_of(env):
    world = env.unwrapped.env.unwrapped
    cells = world.grid.encode()
    return world, {
        (x, y): (IDX_TO_OBJECT[int(cells[x, y, 0])], IDX_TO_COLOR[int(cells[x, y, 1])])
        for x in range(world.grid.width)
        for y in range(world.grid.height)
    }


@pytest.mark.parametrize("level", LEVELS)
def test_the_whole_grid_is_told_and_nothing_else(level):
    env = lang_agent.make(level, renderer="whole")
    for info, _ in walk(env, 1, 30):
        world, cells = grid_of(env)
        told = {}
        for line in info["descriptions"]:
            found = re.fullmatch(r"There is an? (?:(?:open|closed|locked) )?(\w+) (\w+) at column "
                                 r"(\d+), row (\d+)", line)  # fmt: skip
            if found:
                told[int(found[3]) - 1, int(found[4]) - 1] = (found[2], found[1])
        things = {place: cell for place, cell in cells.items() if cell[0] not in ("empty", "wall")}
        assert told == things
        open_cells = set()
        for line in info["descriptions"]:
            found = re.fullmatch(r"Row (\d+) is open at columns? (.*)", line)
            for run in found[2].split(", ") if found else ():
                first, _, last = run.partition(" to ")
                for column in range(int(first), int(last or first) + 1):
                    open_cells.add((column - 1, int(found[1]) - 1))
        assert open_cells == {place for place, cell in cells.items() if cell[0] != "wall"}
        x, y = world.agent_pos
        assert info["descriptions"][0].startswith(f"You stand at column {x + 1}, row {y + 1} ")


def test_absolute_places_are_where_things_stand():
    env = lang_agent.make("BabyAI-BossLevel-v0", renderer="absolute")
    seen = 0
    for info, _ in walk(env, 2, 200):
        _, cells = grid_of(env)
        for line in info["descriptions"]:
            found = re.fullmatch(r"You see a (?:open |closed |locked )?(?:(\w+) )?(\w+) at column "
                                 r"(\d+), row (\d+)", line)  # fmt: skip
            if found:
                kind, color = cells[int(found[3]) - 1, int(found[4]) - 1]
                assert kind == found[2]
                assert found[1] in (None, color)
                seen += 1
    assert seen > 200


def offset(line, one, other):
    """So many steps in one direction; fewer than 0 in the other."""
    found = re.findall(rf"(\d+) steps? ({one}|{other})", line)
    return sum(int(number) * (1 if side == one else -1) for number, side in found)


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_remembered_was_seen_and_is_out_of_view(level):
    env = lang_agent.make(level, renderer="remembered", prompt="minimal")
    plain = lang_agent.make(level, prompt="minimal")
    remembered = 0
    for (info, _), (now, _) in zip(walk(env, 3, 150), walk(plain, 3, 150), strict=True):
        lines = info["descriptions"]
        assert lines[: len(now["descriptions"])] == now["descriptions"]  # what is seen comes first
        world, cells = grid_of(env)
        (fx, fy), (ax, ay) = STEPS[world.agent_dir], world.agent_pos
        for line in lines[len(now["descriptions"]) :]:
            right, ahead = offset(line, "right", "left"), offset(line, "forward", "behind")
            place = ax + fx * ahead - fy * right, ay + fy * ahead + fx * right
            kind, color = cells[place]
            if line.startswith("You remember") and "opening" not in line:
                assert f"{color} {kind}" in line  # nothing moves by itself in these levels
                remembered += 1
            else:
                assert line.startswith(("Unexplored: ", "You remember an opening"))
                assert kind != "wall"
    assert remembered > 50 or "FourRooms" in level


def test_the_place_can_be_reckoned_from_moves_and_views_alone():
    """Dead reckoning with nothing but what is seen comes to where the agent really is."""
    from minigrid.core.constants import OBJECT_TO_IDX, STATE_TO_IDX

    free = {OBJECT_TO_IDX[name] for name in ("empty", "floor", "goal", "lava")}
    for level in LEVELS:
        env = lang_agent.make(level)
        world = env.unwrapped.env.unwrapped
        x = y = 0
        ahead = None
        for number, (_, action) in enumerate(walk(env, 4, 300)):
            if not number:
                begin, facing = tuple(world.agent_pos), int(world.agent_dir)
            elif action == "turn left":
                facing = (facing - 1) % 4
            elif action == "turn right":
                facing = (facing + 1) % 4
            elif action == "go forward":
                kind, _, state = ahead
                door = kind == OBJECT_TO_IDX["door"] and state == STATE_TO_IDX["open"]
                if kind in free or door:
                    x, y = x + STEPS[facing][0], y + STEPS[facing][1]
            assert (begin[0] + x, begin[1] + y) == tuple(world.agent_pos)
            assert facing == world.agent_dir
            image = world.gen_obs()["image"]
            ahead = image[image.shape[0] // 2, image.shape[1] - 2].tolist()


def test_memory_begins_anew_with_every_episode_and_is_every_environments_own():
    one, other = (lang_agent.make("BabyAI-GoToLocal-v0", renderer="remembered") for _ in range(2))
    first = one.reset(seed=5)[0]
    turns = [one.step("turn left")[4]["descriptions"] for _ in range(2)]
    assert any("remember" in line for lines in turns for line in lines)
    assert other.reset(seed=5)[0] == first
    assert one.reset(seed=5)[0] == first


def test_an_opening_in_a_wall_is_remembered():
    renderer = RememberedMap()
    wall, empty = (2, 5, 0), (1, 0, 0)
    renderer.cells = {(2, y): wall for y in range(6)} | {
        (2, 3): empty,
        (1, 3): empty,
        (3, 3): empty,
    }
    assert list(renderer._openings()) == [(2, 3)]
    renderer.cells = {(x, y): empty for x in range(3) for y in range(3)}
    assert list(renderer._openings()) == []


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_prompt_can_be_used_with_every_renderer(prompt, renderer):
    env = lang_agent.make("BabyAI-GoToLocal-v0", prompt=prompt, renderer=renderer)
    text, info = env.reset(seed=0)
    text = env.step("turn left")[0]
    assert info["mission"] in text
    if prompt in ("minimal", "goal_last", "goal_last_doors", "balrog"):
        assert "You see" not in text
        assert "Tu vois" not in text


def test_things_are_what_the_lines_tell_of_in_the_words_of_the_episode(tmp_path):
    row = "{{ thing.name }}|{{ thing.state }}|{{ thing.place }}\n"
    (tmp_path / "own.jinja").write_text(f"{{% for thing in things %}}{row}{{% endfor %}}>")
    env = lang_agent.make(
        "BabyAI-OpenDoor-v0", prompt="own", prompt_folder=str(tmp_path),
        wording="lang_agent.envs.wordings:invented",
    )  # fmt: skip
    text, info = env.reset(seed=0)
    rows = [line.split("|") for line in text.splitlines()[:-1]]
    assert len(rows) == len(info["descriptions"])
    for (name, state, place), line in zip(rows, info["descriptions"], strict=True):
        assert line == f"You see a {f'{state} ' if state else ''}{name} {place}"
    assert any(state == "closed" for _, state, _ in rows)
    assert not {"red", "green", "blue"} & {word for row in rows for word in row[0].split()}


def test_a_renderer_without_things_has_its_lines_for_them():
    def render(observation, env):
        return {"mission": "m", "descriptions": ["one line", "another"]}

    env = lang_agent.make("BabyAI-GoToLocal-v0", prompt="minimal", renderer=render)
    assert "See: one line, another" in env.reset(seed=0)[0]


def test_a_renderer_that_is_a_class_is_told_when_an_episode_begins():
    class Counter:
        def begin(self, env, wording):
            self.looks, self.size = 0, env.unwrapped.width

        def __call__(self, observation, env):
            self.looks += 1
            return {"descriptions": [f"look {self.looks} of {self.size}"]}

    env = lang_agent.make("BabyAI-GoToLocal-v0", renderer=Counter)
    assert "look 1 of 8" in env.reset(seed=0)[0]
    assert "look 2 of 8" in env.step("turn left")[0]
    assert "look 2" not in env.reset(seed=0)[0]
    other = lang_agent.make("BabyAI-GoToLocal-v0", renderer=Counter)
    other.reset(seed=1)
    assert "look 2 of 8" in env.step("turn left")[0]


def test_prompts_that_do_not_ask_for_things_are_not_given_them():
    env = lang_agent.make("BabyAI-GoToLocal-v0", prompt="transcript").unwrapped
    env.reset(seed=0)
    assert "things" not in env._fields
    assert not env.prompt.reads_things
    with pytest.raises(LangAgentError, match="renderer"):
        lang_agent.make("BabyAI-GoToLocal-v0", renderer="remember")


@pytest.mark.parametrize("things", ["a ball", ["a ball"], {"name": "ball"}, 3])
def test_things_that_are_none_are_one_sentence(things):
    def render(observation, env):
        return {"mission": "m", "descriptions": ["one line"], "things": things}

    env = lang_agent.make("BabyAI-GoToLocal-v0", prompt="minimal", renderer=render)
    with pytest.raises(LangAgentError, match="must be a list of dictionaries"):
        env.reset(seed=0)
