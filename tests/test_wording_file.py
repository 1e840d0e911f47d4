"""Other words for a world, from a file."""

import pytest

import lang_agent
from lang_agent import LangAgentError
from lang_agent.agents.expert import ExpertAgent
from lang_agent.rollout import play

LEVEL = "BabyAI-GoToLocal-v0"


def made(tmp_path, text, **options):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    return lang_agent.make(LEVEL, wording=str(tmp_path / "mine.yaml"), **options)


def test_words_phrases_and_missions_are_said_otherwise_and_act(tmp_path):
    env = made(tmp_path, """
words: {ball: sphere, red: crimson}
actions: {turn left: rotate left}
missions:
  - ["go to *", ["walk over to {1}", "find {1}"]]
""")  # fmt: skip
    plain = lang_agent.make(LEVEL)
    begun = set()
    for seed in range(12):
        text, info = env.reset(seed=seed)
        own = plain.reset(seed=seed)[1]["mission"]
        thing = own.removeprefix("go to ").replace("ball", "sphere").replace("red", "crimson")
        assert info["mission"] in (f"walk over to {thing}", f"find {thing}")
        assert not {"ball", "red"} & set(text.split())
        assert info["actions"][0] == "rotate left"
        begun.add(info["mission"].split()[0])
        assert env.reset(seed=seed)[0] == text  # drawn from the seed
    assert begun == {"walk", "find"}
    (episode,) = play(ExpertAgent(), [env], [3])
    assert episode.success


def test_a_mission_that_no_pattern_fits_stays(tmp_path):
    env = made(tmp_path, 'missions: [["put * next to *", ["bring {1} beside {2}"]]]')
    assert env.reset(seed=0)[1]["mission"] == lang_agent.make(LEVEL).reset(seed=0)[1]["mission"]


def test_parts_go_where_they_are_named(tmp_path):
    from lang_agent.text_env.wording_file import Said

    said = Said((("put * next to *", "beside {2} set {1}, {1}"),))
    assert said("put a box next to the key") == "beside the key set a box, a box"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("missions: [go]", "must read"),
        ('missions: [["go to *", []]]', "must read"),
        ('missions: [["go to *", ["find {2}"]]]', "has 1 stars"),
        ('missions: [["* * * * *", ["x"]]]', "more than 4 stars"),
        ("words: {ball: 3}", "must be a text"),
        ("nouns: {ball: sphere}", "nouns"),
        ("words: [ball]", "words"),
        ("actions: {turn lft: rotate}", "Did you mean 'turn left'"),
        ("actions: {turn left: go forward}", "one name to different actions"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path, text, reason):
    with pytest.raises(LangAgentError, match=reason):
        made(tmp_path, text).reset(seed=0)
    with pytest.raises(LangAgentError, match=r"nothing\.yaml"):
        lang_agent.make(LEVEL, wording=str(tmp_path / "nothing.yaml"))


def test_a_file_translates_what_a_template_says_by_itself(tmp_path):
    env = made(tmp_path, 'translations: {"Goal:": "Task:"}\n', prompt="minimal")
    plain = lang_agent.make(LEVEL, prompt="minimal")
    text, own = env.reset(seed=0)[0], plain.reset(seed=0)[0]
    assert text.startswith("Task: go to ")
    assert text.removeprefix("Task:") == own.removeprefix("Goal:")
