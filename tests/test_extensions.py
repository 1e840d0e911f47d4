"""A person's own algorithm, metric, callback and optimizer, named from a command."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

import lang_agent
from lang_agent import Decision, LangAgentError, TrainConfig, World
from lang_agent.cli import main as cli
from lang_agent.learn.algorithms import resolve
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.optimizer import Optimizer
from lang_agent.train import trainer

PAGE = (Path(__file__).parent.parent / "docs/extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL)
ENV = "BabyAI-GoToRedBallNoDists-v0"
RUN = ["--env", ENV, "--env-args", "max_steps=8", "--prompt", "minimal", "--rollout-steps", "32",
       "--envs", "2", "--eval-episodes", "0", "--snapshot-every", "0", 
       "--track", "none", "--seed", "3", "--model", "model"]  # fmt: skip

FAULTS = '''
import torch
from lang_agent import Algorithm
from lang_agent.learn.algorithms import gae_credit

def loss(log_probs, batch, config):
    return -log_probs

def late_loss(log_probs, batch, config, seen=[]):
    seen.append(1)
    if len(seen) > 2:
        raise RuntimeError("the loss is tired")
    return -log_probs

def no_credit(episodes, rewards, config, state):
    return None

USES = {"gae_lambda", "epochs", "minibatch_decisions"}
LATE = Algorithm(gae_credit, late_loss, critic=True, one_epoch=True)
NO_CREDIT = Algorithm(no_credit, loss)
WRONG_SHAPE = Algorithm(gae_credit, lambda log_probs, batch, config: log_probs.sum(), critic=True)
WRONG_SIGNATURE = Algorithm(lambda episodes: None, loss)
WRONG_USES = Algorithm(gae_credit, loss, uses={"gae_lamda"})
NOTHING = Algorithm(gae_credit)

def late_callback(run, metrics, episodes):
    metrics["seen"] = len(episodes)
    if run.progress.updates == 3:
        raise RuntimeError("the callback is tired")

def late_metric(episode, seen=[]):
    seen.append(1)
    if len(seen) > 12:
        raise RuntimeError("the metric is tired")
    return 1

def words(episode):
    return "many"

def adds_a_list(run, metrics, episodes):
    metrics["x"] = [1, 2]

def one(run):
    pass

class Dumb:
    pass

class Keeps(torch.optim.SGD):
    """Keeps numbers of its own, by parameter and in all."""

    def __init__(self, parameters, lr, weight_decay):
        super().__init__(parameters, lr=lr, momentum=0.9)
        self.param_groups[0]["steps"] = 0

    def step(self, closure=None):
        super().step()
        group = self.param_groups[0]
        group["steps"] += 1
        for parameter in group["params"]:
            known = self.state[parameter]
            known["times"] = known.get("times", 0) + 1
            known["scale"] = known.get("scale", 1.0) * 0.9
            with torch.no_grad():  # what it keeps moves the policy
                parameter.mul_(1 - 1e-3 * known["scale"] / (known["times"] + group["steps"]))

class Lists(torch.optim.SGD):
    def __init__(self, parameters, lr, weight_decay):
        super().__init__(parameters, lr=lr)

    def step(self, closure=None):
        super().step()
        self.state[self.param_groups[0]["params"][0]]["past"] = [1]
'''


@pytest.fixture
def folder(tmp_path, monkeypatch, policy):
    """A folder where a person stands, with the page's files, some that are wrong, and a model."""
    policy.save_pretrained(tmp_path / "model")
    (tmp_path / "faults.py").write_text(FAULTS)
    for name, text in BLOCKS:
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("faults", *(name for name, _ in BLOCKS)):
        sys.modules.pop(name, None)


def lines(run: str) -> list[dict]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def parameters(run: str) -> dict[str, torch.Tensor]:
    policy = lang_agent.load_policy(run)
    return {name: value.detach() for name, value in policy.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


OWN = ["--algorithm", "my_learning:SIGN", "--optimizer", "my_learning:Lion",
       "--metrics", "my_learning:prompt_length", "--callback", "my_learning:Enough"]  # fmt: skip


def test_what_the_page_shows_is_named_in_a_command_and_goes_on_with_the_persons_word(
    folder, capsys
):
    cli.run(["train", *RUN, *OWN, "--steps", "60", "--out", "run"])
    first = lines("run")
    assert len(first) >= 2
    for one in first:
        assert one["metric/prompt_length"] > 50
        assert one["metric/best"] >= one["success"]
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["learn"]["algorithm"] == "my_learning:SIGN"
    assert config["callback"] == ["my_learning:Enough"]
    with pytest.raises(LangAgentError, match=r"'my_learning:SIGN'.*--trust"):
        cli.run(["train", "--resume", "run", "--steps", "150"])
    cli.run(["train", "--resume", "run", "--trust", "--steps", "90"])
    assert lines("run")[: len(first)] == first
    assert lines("run")[-1]["steps"] >= 90
    cli.run(["report", "run", "--out", "report.html"])
    page = Path("report.html").read_text()
    assert "<figcaption>prompt_length<" in page
    assert "<figcaption>best<" in page
    capsys.readouterr()
    cli.run(["evaluate", ENV, "--agent", "run", "--episodes", "1", "--out", "e"])  # learns nothing
    assert ENV in capsys.readouterr().out


def test_a_callback_ends_a_run_as_if_it_were_done(folder, capsys):
    enough = folder / "my_learning.py"
    enough.write_text(enough.read_text().replace("0.95", "-1"))
    cli.run(["train", *RUN, "--callback", "my_learning:Enough", "--steps", "5000", "--out", "run"])
    assert len(lines("run")) == 1
    assert "The run folder holds" in capsys.readouterr().out


def test_a_file_of_options_names_the_same(folder):
    Path("mine.yaml").write_text(
        "learn: {algorithm: my_learning:SIGN, optimizer: torch.optim:RMSprop}\n"
        "metrics: [my_learning:prompt_length]\ncallback: [my_learning:Enough]\n"
    )
    cli.run(["train", "--config", "mine.yaml", *RUN, "--steps", "30", "--out", "run"])
    assert lines("run")[0]["metric/prompt_length"] > 50


WRONG = {
    ("algorithm", "faults:NOTHIN"): "Did you mean 'NOTHING'",
    ("algorithm", "faults:loss"): "is a function, not a lang_agent.Algorithm",
    ("algorithm", "faults:WRONG_SIGNATURE"): r"called with \(episodes, rewards, config, state\)",
    ("algorithm", "faults:WRONG_USES"): "Did you mean 'gae_lambda'",
    ("algorithm", "faults:NOTHING"): "neither a policy_loss nor a step",
    ("algorithm", "ppoo"): "Did you mean 'ppo'",
    ("optimizer", "faults:one"): r"called with \(parameters, lr=..., weight_decay=...\)",
    ("optimizer", "builtins:dict"): "makes a|failed",
    ("optimizer", "adamm"): "Did you mean 'adamw'",
    ("metrics", "faults:wordz"): "Did you mean 'words'",
    ("metrics", "length"): "module:name",
    ("callback", "faults:one"): r"called with \(run, metrics, episodes\), and takes \(run\)",
    ("callback", "faults:Dumb"): "cannot be called",
    ("callback", "nowhere:f"): "no module 'nowhere'",
    ("callback", "halves:f"): r"its module fails: SyntaxError: .*halves.py, line 1",
    ("callback", "json:f"): "is not the 'json.py' of the current folder",
}


@pytest.mark.parametrize(("option", "name"), WRONG)
def test_a_wrong_name_or_function_is_a_sentence_before_the_run_begins(folder, option, name):
    Path("halves.py").write_text("def f(:\n")
    Path("json.py").write_text("def f(run, metrics, episodes): pass\n")
    with pytest.raises(LangAgentError, match=WRONG[option, name]):
        cli.run(["train", *RUN, f"--{option}", name, "--out", "run"])
    assert not Path("run").exists()


FAIL_LATER = {
    ("callback", "faults:late_callback"): "callback 'faults:late_callback' failed: RuntimeError",
    ("metrics", "faults:late_metric"): "metric 'faults:late_metric' failed: RuntimeError",
    ("algorithm", "faults:LATE"): "policy_loss of 'faults:LATE' failed: RuntimeError",
}


@pytest.mark.parametrize(("option", "name"), FAIL_LATER)
def test_a_run_whose_function_fails_loses_nothing(folder, option, name, recwarn):
    arguments = ["train", *RUN, f"--{option}", name, "--steps", "128", "--out"]
    with pytest.raises(LangAgentError, match=FAIL_LATER[option, name]):
        cli.run([*arguments, "run"])
    assert any("goes on once that is mended" in str(one.message) for one in recwarn)
    before = lines("run")
    assert len(before) >= 2
    saved = sorted(Path("run/checkpoints").iterdir())[-1]
    assert int(saved.name.removeprefix("step-")) == before[-1]["steps"]
    if option == "metrics":  # it goes on as after a callback
        return
    text = Path("faults.py").read_text()
    text = re.sub(r"if (len\(seen\) > \d+|run.progress.updates == 3)", "if False", text)
    Path("faults.py").write_text(text)
    sys.modules.pop("faults")
    cli.run(["train", "--resume", "run", "--trust"])
    assert [one["updates"] for one in lines("run")] == list(range(1, len(lines("run")) + 1))
    assert lines("run")[: len(before)] == before
    if option == "algorithm":  # it failed in the midst of an update
        cli.run([*arguments, "whole"])
        assert same(parameters("run"), parameters("whole"))


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("algorithm", "faults:NO_CREDIT", "must return two lists"),
        ("algorithm", "faults:WRONG_SHAPE", "a loss for every token, of the shape"),
        ("metrics", "faults:words", "returns 'many', where a number"),
        ("callback", "faults:adds_a_list", r"puts \[1, 2\] into the metrics as 'x'"),
        ("optimizer", "faults:Lists", "keeps a list as 'past'"),
    ],
)
def test_what_a_function_returns_is_looked_at(folder, option, name, said):
    with pytest.raises(LangAgentError, match=said):
        cli.run(["train", *RUN, f"--{option}", name, "--steps", "30", "--out", "run"])


def test_what_an_optimizer_of_ones_own_keeps_is_kept_to_the_bit(folder):
    own = ["--optimizer", "faults:Keeps", "--learning-rate", "0.01", "--lr-final", "1"]
    cli.run(["train", *RUN, *own, "--steps", "33", "--out", "part"])
    cli.run(["train", "--resume", "part", "--trust", "--steps", "80"])
    cli.run(["train", *RUN, *own, "--steps", "80", "--out", "whole"])
    assert same(parameters("part"), parameters("whole"))


def test_numbers_of_an_optimizers_state_come_back_as_what_they_were(folder, policy):
    one, other = (Optimizer(policy, "faults:Keeps", 0.0, 0.0) for _ in range(2))
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    one.step()
    policy.zero_grad(set_to_none=True)
    other.load_state_tensors(one.state_tensors())
    assert other.parts[0].param_groups[0]["steps"] == 1
    state = next(iter(other.parts[0].state.values()))
    assert (type(state["times"]), state["times"]) == (int, 1)
    assert (type(state["scale"]), state["scale"]) == (float, 0.9)


@pytest.mark.parametrize(
    "settings",
    [
        {"learn": {"algorithm": "canary:X"}},
        {"learn": {"optimizer": "canary:X"}},
        {"metrics": ["canary:X"]},
        {"callback": ["canary:X"]},
        {"callback": ["os:system"]},
        {"learn": {"optimizer": "os:system"}},
        {"learn": {"algorithm": "lang_agent.envs.minigrid:make"}},
    ],
)
def test_what_a_run_folder_names_is_not_imported_on_its_word(folder, settings):
    Path("canary.py").write_text("from pathlib import Path\nPath('sang').touch()\n")
    whole = lang_agent.config.as_data(TrainConfig())
    learn = {**whole["learn"], **settings.get("learn", {})}
    Path("run").mkdir()
    Path("run/config.yaml").write_text(yaml.safe_dump({**whole, **settings, "learn": learn}))
    for resumed in (
        lambda: cli.run(["train", "--resume", "run"]),
        lambda: trainer.resume(Path("run")),
    ):
        with pytest.raises(LangAgentError):
            resumed()
    assert not Path("sang").exists()
    config = lang_agent.config.load_config("run/config.yaml", TrainConfig)
    if "learn" in settings and "algorithm" in settings["learn"]:
        with pytest.raises(LangAgentError):
            resolve(config.learn)
    assert not Path("sang").exists()
    sys.modules.pop("canary", None)


def test_an_algorithm_of_ones_own_refuses_the_options_that_it_has_no_use_for(folder):
    assert resolve(LearnConfig("my_learning:SIGN")).normalise == "batch"
    with pytest.raises(LangAgentError, match="clip_low"):
        resolve(LearnConfig("my_learning:SIGN", clip_low=0.5))


def test_the_loop_of_ones_own_runs_as_it_stands(folder, capsys):
    block = re.search(r"```python\n(.*?)```", PAGE.partition("## A loop of your own")[2], re.DOTALL)
    text = block[1]
    assert len([line for line in text.splitlines() if line.strip()]) <= 25
    assert not re.search(r"\._|\b_\w", text)
    exec(compile(text, "docs/extending.md", "exec"), {})
    assert capsys.readouterr().out.count("success") >= 2


def test_every_name_that_the_page_lists_is_exported():
    table = PAGE.partition("## A loop of your own")[2]
    names = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    assert {"Agent", "Decision", "Step", "Episode", "TextObservation", "Learner"} <= names
    assert names <= set(lang_agent.__all__)
    assert Decision("go").action == "go"


@pytest.mark.parametrize(
    "success",
    [
        lambda env, reward: True,
        lambda observation, reward, done: True,
        lambda reward, terminated, env: True,
        lambda env, reward, terminated, info: True,
    ],
)
def test_a_success_of_other_arguments_is_refused(success):
    with pytest.raises(LangAgentError, match=r"success.*\(environment, reward, terminated\)"):
        World(actions={"go": 0}, renderers={}, success=success)


@pytest.mark.parametrize(
    "success", [lambda e, r, t: True, lambda env, reward, done: True, lambda *given: True]
)
def test_a_success_of_these_arguments_is_taken(success):
    assert World(actions={"go": 0}, renderers={}, success=success).success(None, 1.0, True)


@pytest.mark.parametrize(
    ("renderer", "said"),
    [
        (lambda cell, env: None, "returned None, where a dictionary with 'descriptions'"),
        (lambda cell, env: "You stand", "returned 'You stand', where a dictionary"),
        (lambda cell, env: {"descriptions": "one text"}, "as one text, not as lines"),
        (lambda cell: {}, r"called with \(observation, env\), and takes \(cell\)"),
    ],
)
def test_a_renderer_that_is_none_is_a_sentence(renderer, said):
    world = World(actions={"go west": 0}, renderers={})
    with pytest.raises(LangAgentError, match=said):
        lang_agent.make("FrozenLake-v1", world=world, renderer=renderer).reset(seed=0)


AGENTS = """
from lang_agent import Agent, Decision

class Silent(Agent):
    pass

class Few(Agent):
    def act(self, slots, observations):
        return []

class Texts(Agent):
    def act(self, slots, observations):
        return ["turn left"] * len(slots)

class Short(Agent):
    def act(self, slots):
        return []

class Raises(Agent):
    def act(self, slots, observations):
        raise ValueError("no idea")

class Needs(Agent):
    def __init__(self, model):
        pass
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Silent", r"has no act\(slots, observations\)"),
        ("Few", "a lang_agent.Decision for each of the 1 observations, and returned \\[\\]"),
        ("Texts", "returned .'turn left'"),
        ("Short", r"called with \(slots, observations\), and takes \(slots\)"),
        ("Raises", "The agent Raises failed: ValueError: no idea"),
        ("Needs", "missing a required argument: 'model'"),
        ("Absent", "There is no 'Absent'"),
    ],
)
def test_an_agent_of_ones_own_that_is_wrong_is_a_sentence(folder, name, said):
    Path("agents_of_mine.py").write_text(AGENTS)
    sys.modules.pop("agents_of_mine", None)
    with pytest.raises(LangAgentError, match=said):
        cli.run(["evaluate", ENV, "--agent", f"agents_of_mine:{name}", "--episodes", "1",
                 "--env-args", "max_steps=2", "--out", "results"])  # fmt: skip
