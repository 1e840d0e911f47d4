"""The minigrid worlds against recorded data and against minigrid itself."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from lang_agent.envs.minigrid import RENDERERS, minigrid_ids, text_env
from lang_agent.envs.minigrid_renderers import ascii_map, structured
from lang_agent.envs.minigrid_view import encode_view
from lang_agent.envs.minigrid_words import describe
from lang_agent.envs.mixed_local import PAIRS, TASKS
from minigrid import wrappers
from minigrid.core import constants
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Key, Wall, WorldObj
from minigrid.minigrid_env import MiniGridEnv

import lang_agent
from lang_agent import LangAgentError
from lang_agent.language_env import ExpertLostError, language_env
from lang_agent.text_env.registry import text_env_ids


def image(record) -> np.ndarray:
    return np.array(record["image"], dtype=np.uint8)


@pytest.mark.parametrize(("language", "field"), [("en", "descriptions"), ("fr", "descriptions_fr")])
def test_descriptions_equal_the_recorded_ones(oracle, language, field):
    wrong = [record for record in oracle if describe(image(record), language) != record[field]]
    assert len(oracle) == 450
    assert wrong == []


def test_an_unknown_language_is_refused(oracle):
    with pytest.raises(LangAgentError, match="'de'"):
        describe(image(oracle[0]), "de")


def test_mixed_local_equals_the_recorded_traces(traces):
    assert len(traces) == 40
    for key, (mission, max_steps, first, *steps) in traces.items():
        task, seed = key.rsplit("/", 1)
        env = lang_agent.make("BabyAI-MixedLocal-v0", task=task, num_dists=0).unwrapped
        _, info = env.reset(seed=int(seed))
        assert (info["mission"], info["descriptions"]) == (mission, first), key
        assert env.env.unwrapped.max_steps == max_steps, key
        draw = random.Random(int(seed))
        for expected in steps:
            _, reward, terminated, truncated, info = env.step(env.phrases[draw.randrange(6)])
            seen = [info["descriptions"], round(reward, 4), terminated, truncated]
            assert seen == expected, key


@pytest.mark.parametrize("split", ["train", "test"])
def test_held_out_pairs_are_in_the_test_split_alone(split):
    pairs = [" ".join(pair) for pair in PAIRS]
    env = lang_agent.make("BabyAI-MixedLocal-v0", split=split, num_dists=2)
    tasks = set()
    for seed in range(60):
        _, info = env.reset(seed=seed)
        tasks.add(info["task"])
        named = sum(pair in info["mission"] for pair in pairs)
        objects = 1 if info["task"] in ("goto", "pickup", "open") else 2
        assert named == (0 if split == "train" else objects), info["mission"]
    assert tasks == set(TASKS)


def test_the_new_composition_is_for_testing_alone():
    with pytest.raises(LangAgentError, match="pick_up_seq_pick_up"):
        lang_agent.make("BabyAI-MixedLocal-v0", task="pick_up_seq_pick_up")
    env = lang_agent.make("BabyAI-MixedLocal-v0", task="pick_up_seq_pick_up", split="test")
    _, info = env.reset(seed=0)
    assert info["mission"].count("pick up") == 2


def test_sequences_are_of_two_tasks_but_never_of_two_pickups():
    env = lang_agent.make("BabyAI-MixedLocal-v0", task="sequence", num_dists=0)
    missions = [env.reset(seed=seed)[1]["mission"] for seed in range(60)]
    assert len(set(missions)) == 60
    for mission in missions:
        assert mission.count("pick up") < 2
        assert sum(mission.count(what) for what in ("go to", "pick up", "put")) == 2
        assert (", then " in mission) != (" after you " in mission)
    with pytest.raises(LangAgentError, match="Unknown MixedLocal task"):
        lang_agent.make("BabyAI-MixedLocal-v0", task="sequence", split="test")


def test_a_locked_door_may_be_asked_for_with_its_way():
    env = lang_agent.make("BabyAI-MixedLocal-v0", task="pick_up_seq_open", num_dists=0)
    for seed in range(20):
        _, info = env.reset(seed=seed)
        first, second = re.split(", then | after you ", info["mission"])
        if " after you " in info["mission"]:
            first, second = second, first
        color = second.split()[-2]
        assert re.fullmatch(f"pick up (a|the) {color} key", first)
        assert second == f"open the {color} door"
        assert color not in ("red", "grey")  # held out
    with pytest.raises(LangAgentError, match="Unknown MixedLocal task"):
        lang_agent.make("BabyAI-MixedLocal-v0", task="pick_up_seq_open", split="test")


def test_a_goal_that_leaves_the_doors_colour_open_is_reminded_of_the_doors_met():
    env, short = (
        lang_agent.make("BabyAI-MixedLocal-v0", task="open", prompt=prompt)
        for prompt in ("goal_last_doors", "goal_last")
    )
    reminded = 0
    for seed in range(12):
        draw, met = random.Random(seed), ""
        (prompt, info), (plain, _) = env.reset(seed=seed), short.reset(seed=seed)
        for _ in range(30):
            seen = re.search(r"locked (\w+ door)", prompt)
            met = met or (f", {seen[1]}" if seen and "open the door" in prompt else "")
            assert prompt == plain.removesuffix(": ") + met + ": "
            action = draw.choice(info["actions"][:3])
            prompt, _, _, _, info = env.step(action)
            plain = short.step(action)[0]
            reminded += bool(met) and seen is None
    assert reminded


@pytest.mark.parametrize("env_id", [*minigrid_ids(), "BabyAI-MixedLocal-v0"])
def test_every_minigrid_id_plays_in_words_and_sees_what_minigrid_sees(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = lang_agent.make(env_id)
    world = env.unwrapped.env.unwrapped
    draw = random.Random(0)
    prompt, info = env.reset(seed=0)
    for _ in range(12):
        assert prompt.endswith("Action: ")
        assert np.array_equal(encode_view(world), MiniGridEnv.gen_obs(world)["image"])
        prompt, _, terminated, truncated, info = env.step(draw.choice(info["actions"]))
        assert info["verdict"] == "exact"
        if terminated or truncated:
            prompt, info = env.reset()


def test_all_of_the_minigrid_package_is_there():
    ids = text_env_ids()
    assert "BabyAI-MixedLocal-v0" in ids
    assert len([name for name in ids if name.startswith(("BabyAI", "MiniGrid"))]) > 150


@pytest.mark.parametrize("env_id", ["BabyAI-GoToLocal-v0", "BabyAI-MixedLocal-v0"])
def test_gymnasiums_checker_passes(env_id):
    env = gymnasium.make(f"lang_agent/{env_id}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*render_modes.*|.*render mode.*|.*spec.*")
        check_env(env.unwrapped, skip_render_check=True)


PLAY = """
import random, lang_agent
env = lang_agent.make("BabyAI-MixedLocal-v0", num_dists=8)
draw, told = random.Random(1), []
for seed in range(6):
    text, info = env.reset(seed=seed)
    for _ in range(20):
        text, reward, terminated, truncated, info = env.step(draw.choice(info["actions"]))
        told.append((text[-80:], reward))
        if terminated or truncated: break
import hashlib; print(hashlib.sha256(repr(told).encode()).hexdigest())
"""


def test_a_seed_gives_the_same_episode_in_every_process_and_prints_nothing_else():
    outputs = [
        subprocess.run([sys.executable, "-c", PLAY], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert outputs[0].stdout == outputs[1].stdout
    assert len(outputs[0].stdout.split()) == 1


def test_the_gymnasium_module_spelling_needs_no_import():
    code = (
        "import gymnasium; print(gymnasium.make('lang_agent.envs:lang_agent/BabyAI-GoToLocal-v0'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "TextEnv" in run.stdout


def test_ascii_and_structured_views_agree_with_the_words(oracle):
    record = next(
        r for r in oracle if r["carrying"] and any("door" in d for d in r["descriptions"])
    )
    data = structured(image(record))
    assert data["carrying"] == record["carrying"]
    told = [text for text in record["descriptions"] if "wall" not in text and "carry" not in text]
    assert len(data["objects"]) == len(told)
    for thing, text in zip(data["objects"], told, strict=True):
        assert f"{thing['color']} {thing['type']}" in text
        assert thing.get("state", "") in text
    rows = ascii_map(image(record))
    assert rows[6].split(" ")[3] == "^^"
    assert rows[-1].startswith("carrying ")
    drawn = sum(cell[0] in "kobg~/+L" for row in rows[:7] for cell in row.split(" ") if cell)
    assert drawn == len(told)


@pytest.mark.parametrize("renderer", ["babyai", "babyai_fr", "ascii", "json"])
def test_renderers_by_name(renderer):
    env = lang_agent.make("BabyAI-GoToLocal-v0", renderer=renderer)
    prompt, info = env.reset(seed=3)
    assert all(line in prompt for line in info["descriptions"])
    if renderer == "json":
        assert json.loads(info["descriptions"][0])["objects"]


def test_the_bot_solves_mixed_local_in_words():
    from lang_agent.agents.expert import ExpertAgent
    from lang_agent.rollout import play

    envs = [lang_agent.make("BabyAI-MixedLocal-v0", num_dists=4) for _ in range(2)]
    episodes = list(play(ExpertAgent(), envs, range(20)))
    assert sum(episode.success for episode in episodes) == 20


@pytest.mark.parametrize("wording", [None, "lang_agent.envs.wordings:varied"])
@pytest.mark.parametrize(
    ("level", "seed"), [("Unlock", 1_000_000_027), ("GoToImpUnlock", 1_000_000_043)]
)
def test_the_bot_gives_up_where_the_only_key_lies_behind_its_own_door(level, seed, wording):
    env = lang_agent.make(f"BabyAI-{level}-v0", wording=wording)
    env.reset(seed=seed)

    def play() -> None:
        said, over = None, False
        while not over:
            said = language_env(env).expert_action(said)
            _, _, terminated, truncated, _ = env.step(said)
            over = terminated or truncated

    with pytest.raises(ExpertLostError):  # it went on planning one step for ever
        play()


# -- what is described is true, or refused -----------------------------------------------------


def wrapped(wrapper, **options):
    level = wrapper(gymnasium.make("BabyAI-GoToLocal-v0"))
    return text_env(level, options)


@pytest.mark.parametrize(
    "wrapper",
    [
        wrappers.FullyObsWrapper,
        wrappers.OneHotPartialObsWrapper,
        wrappers.RGBImgObsWrapper,
        wrappers.RGBImgPartialObsWrapper,
        lambda env: wrappers.RGBImgPartialObsWrapper(env, tile_size=1),
        lambda env: wrappers.ImgObsWrapper(wrappers.FullyObsWrapper(env)),
        lambda env: gymnasium.wrappers.TransformObservation(
            env, lambda seen: {**seen, "image": seen["image"].astype(np.int64)}, None
        ),
        wrappers.FlatObsWrapper,
    ],
)
@pytest.mark.parametrize("renderer", RENDERERS)
def test_what_is_not_the_agents_view_is_refused(wrapper, renderer):
    with pytest.raises(LangAgentError, match="partial view"):
        wrapped(wrapper, renderer=renderer).reset(seed=0)


def test_a_whole_grid_of_the_views_size_is_refused():
    level = wrappers.FullyObsWrapper(gymnasium.make("MiniGrid-Empty-5x5-v0", agent_view_size=5))
    assert level.reset(seed=0)[0]["image"].shape == (5, 5, 3)
    with pytest.raises(LangAgentError, match="FullyObsWrapper makes of the observation"):
        text_env(level, {}).reset(seed=0)


@pytest.mark.parametrize(
    "wrapper",
    [
        wrappers.ImgObsWrapper,
        lambda env: wrappers.ViewSizeWrapper(env, 5),
        lambda env: wrappers.ViewSizeWrapper(env, 11),
        wrappers.PositionBonus,
    ],
)
def test_wrappers_that_leave_the_view_are_described(wrapper):
    env = wrapped(wrapper)
    level = env.env.unwrapped
    for seed in range(5):
        _, info = env.reset(seed=seed)
        size = getattr(env.env, "agent_view_size", 7)
        grid, visible = level.gen_obs_grid(size)
        assert info["descriptions"] == describe(grid.encode(visible))
        assert info["mission"] == level.mission


@pytest.mark.parametrize("size", [3, 5, 9, 11])
def test_any_view_size(size):
    env = lang_agent.make("BabyAI-GoToLocal-v0", agent_view_size=size)
    _, info = env.reset(seed=3)
    level = env.unwrapped.env.unwrapped
    assert np.array_equal(encode_view(level), MiniGridEnv.gen_obs(level)["image"])
    assert info["descriptions"] == describe(MiniGridEnv.gen_obs(level)["image"])


class GlassWall(Wall):
    def see_behind(self):
        return True


class Apple(WorldObj):
    def __init__(self, color):
        super().__init__("apple", color)

    def can_pickup(self):
        return True


@pytest.fixture
def own_things(monkeypatch):
    """A kind and two colours of one's own, entered in one table or in both."""
    monkeypatch.setitem(constants.OBJECT_TO_IDX, "apple", 40)
    monkeypatch.setitem(constants.COLOR_TO_IDX, "gold", 40)
    monkeypatch.setitem(constants.COLOR_TO_IDX, "olive", 41)
    monkeypatch.setitem(constants.IDX_TO_COLOR, 41, "olive")


class Orchard(MiniGridEnv):
    """A level of one's own: golden apples behind glass."""

    def __init__(self, size=7, **kwargs):
        space = MissionSpace(mission_func=lambda: "eat a golden apple")
        super().__init__(mission_space=space, grid_size=size, max_steps=20, **kwargs)

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        self.put_obj(GlassWall(), 3, 3)
        self.put_obj(Apple("gold"), 3, 1)
        self.put_obj(Ball("gold"), 2, 2)
        self.put_obj(Ball("green"), 4, 2)
        self.put_obj(Key("olive"), 1, 1)
        self.agent_pos, self.agent_dir = (3, 5), 3
        self.mission = "eat a golden apple"

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or action == 3, truncated, info


SEEN = [
    "You see a wall 2 steps forward",
    "You see a olive key 2 steps left and 4 steps forward",
    "You see a gold ball 1 step left and 3 steps forward",
    "You see a gold apple 4 steps forward",
    "You see a green ball 1 step right and 3 steps forward",
]


def test_things_of_ones_own_go_by_their_names(own_things):
    level = Orchard()
    level.reset(seed=0)
    image = encode_view(level)
    assert np.array_equal(image, MiniGridEnv.gen_obs(level)["image"])  # through the glass
    told = [line for line in describe(image) if "wall" not in line]
    assert told == [line for line in SEEN if "wall" not in line]
    assert "Tu vois une apple gold 4 pas devant" in describe(image, "fr")
    things = structured(image)["objects"]
    assert {"type": "apple", "color": "gold", "right": 0, "forward": 4} in things
    cells = [cell for row in ascii_map(image) for cell in row.split(" ")]
    drawn = [cell for cell in cells if cell and cell[0] in "oak"]
    assert len(set(drawn)) == len(drawn) == 4  # gold and green, ball and apple: all different


def test_ascii_symbols_are_of_one_thing_each(monkeypatch):
    for at, name in enumerate(("goblin", "gnome", "gold", "ground", "glob", "boggle")):
        monkeypatch.setitem(constants.OBJECT_TO_IDX, name, 50 + at)
        monkeypatch.setitem(constants.COLOR_TO_IDX, name, 50 + at)
    cells = set()
    for kind in [*range(5, 10), *range(50, 56)]:
        for color in [*range(6), *range(50, 56)]:
            image = np.zeros((3, 3, 3), np.uint8)
            image[0, 0] = kind, color, 0
            cells.add(ascii_map(image)[0].split(" ")[0])
    assert len(cells) == 11 * 12
    assert all(len(cell) == 2 for cell in cells)


@pytest.mark.parametrize("renderer", [describe, ascii_map, structured])
@pytest.mark.parametrize("cell", [(77, 0, 0), (5, 77, 0), (4, 0, 77)])
def test_what_has_no_name_is_refused(renderer, cell):
    image = np.zeros((3, 3, 3), np.uint8)
    image[0, 0] = cell
    with pytest.raises(LangAgentError, match="77, which has no name in minigrid's tables"):
        renderer(image)


@pytest.mark.parametrize(
    "image",
    [np.zeros((7, 7, 20), np.uint8), np.zeros((56, 56, 3), np.uint8), np.zeros((7, 7, 3)), None,
     np.zeros(147, np.uint8), [[1]]],
)  # fmt: skip
@pytest.mark.parametrize("renderer", [describe, ascii_map, structured])
def test_what_is_no_view_is_refused(renderer, image):
    with pytest.raises(LangAgentError, match="not minigrid's partial view"):
        renderer(image)


# -- levels of one's own -----------------------------------------------------------------------

ORCHARD = """
import gymnasium
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball
from minigrid.minigrid_env import MiniGridEnv


class Orchard(MiniGridEnv):
    def __init__(self, size=6, **kwargs):
        space = MissionSpace(mission_func=lambda: "find the ball")
        super().__init__(mission_space=space, grid_size=size, max_steps=20, **kwargs)

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        self.place_agent()
        self.place_obj(Ball("red"))
        self.mission = "find the ball"


def plain(**kwargs):
    return Orchard(**kwargs)


gymnasium.register("Orchard-v0", entry_point=Orchard)
gymnasium.register("PlainOrchard-v0", entry_point=plain)
"""


@pytest.fixture
def orchard(tmp_path, monkeypatch):
    (tmp_path / "my_orchard.py").write_text(ORCHARD)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("Orchard-v0", "PlainOrchard-v0"):
        gymnasium.registry.pop(name, None)
    sys.modules.pop("my_orchard", None)


@pytest.mark.parametrize(
    "name", ["my_orchard:Orchard-v0", "my_orchard:PlainOrchard-v0", "my_orchard:Orchard",
             "my_orchard:plain"]
)  # fmt: skip
def test_a_level_of_ones_own_speaks(orchard, name):
    env = lang_agent.make(name, size=8, prompt="minimal", actions=["turn left", "go forward"])
    prompt, info = env.reset(seed=0)
    assert prompt.startswith("Goal: find the ball\nSee: ")
    assert info["actions"] == ("turn left", "go forward")
    assert env.unwrapped.env.unwrapped.width == 8
    assert env.step("turn left")[4]["verdict"] == "exact"
    assert lang_agent.make(name).reset(seed=0)[0].endswith("Action: ")
    with pytest.raises(LangAgentError, match="colour"):
        lang_agent.make(name, colour="red", prompt="minimal")


def test_the_command_line_plays_a_level_of_ones_own(orchard, capsys):
    from lang_agent.cli.main import run

    run(["prompt", "my_orchard:Orchard-v0", "--do", "turn left"])
    assert "find the ball" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("BabyAI-MixedLocal-v0", {"num_dists": 30}),
        ("BabyAI-GoToObjDoor-v0", {"room_size": 4, "num_dists": 30}),
        ("BabyAI-GoToLocal-v0", {"num_dists": 40}),
        ("BabyAI-PickupDist-v0", {"room_size": 4}),
    ],
)
def test_a_level_that_cannot_be_drawn_is_one_sentence(env_id, options, monkeypatch, capsys):
    monkeypatch.setattr("lang_agent.envs.minigrid_bounds.MOST_DRAWS", 20_000)
    try:
        env = lang_agent.make(env_id, **options)
    except LangAgentError:
        pytest.skip("the level takes no such option")
    with pytest.raises(LangAgentError, match="could be drawn: none of 20,000 random draws"):
        env.reset(seed=0)
    with pytest.raises(LangAgentError, match="could be drawn"):
        env.reset(seed=1)
    assert capsys.readouterr().out == ""


def test_draws_are_counted_for_each_level_alone(monkeypatch):
    monkeypatch.setattr("lang_agent.envs.minigrid_bounds.MOST_DRAWS", 3_000)
    env = lang_agent.make("BabyAI-GoToLocal-v0")
    for seed in range(100):
        env.reset(seed=seed)
