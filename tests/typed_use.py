"""What a person writes with the package: mypy and pyright check it against the installed wheel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_type

import gymnasium
from torch import Tensor

import lang_agent
from lang_agent import (
    Agent,
    Algorithm,
    DecideConfig,
    Decision,
    Episode,
    LanguagePolicy,
    LearnConfig,
    Learner,
    PolicyAgent,
    Step,
    TextEnv,
    TextObservation,
    TrainConfig,
    Trainer,
    World,
    play,
    start,
)
from lang_agent.learn import losses
from lang_agent.learn.algorithms import gae_credit
from lang_agent.learn.sequences import Batch


class First(Agent):
    """Says the first phrase."""

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [Decision(seen.actions[0] if seen.actions else "") for seen in observations]


def render(cell: int, env: gymnasium.Env[Any, Any]) -> dict[str, Any]:
    return {"mission": "cross the lake", "descriptions": [f"You stand in cell {cell}."]}


def sign_loss(log_probs: Tensor, batch: Batch, config: LearnConfig) -> Tensor:
    return losses.policy_gradient(log_probs, batch.advantages.sign())


SIGN = Algorithm(gae_credit, sign_loss, critic=True, one_epoch=True, uses={"gae_lambda"})


def longest(episode: Episode) -> float:
    return max(len(step.observation.prompt) for step in episode.steps)


def callback(run: Trainer, metrics: dict[str, Any], episodes: Sequence[Episode]) -> None:
    metrics["longest"] = max(map(longest, episodes))
    run.stop = metrics["success"] > 0.95


def loop() -> None:
    world = World(actions={"go west": 0, "go east": 2}, renderers={"cell": render})
    own = TextEnv(gymnasium.make("FrozenLake-v1"), world, prompt="minimal")
    envs = [lang_agent.make("BabyAI-GoToLocal-v0", prompt="minimal"), own]
    policy = LanguagePolicy.from_scratch("nano", seed=0)
    learner = Learner(policy, LearnConfig("ppo"), DecideConfig(temperature=1.0))
    episodes = list(play(PolicyAgent(policy, slots=2, critic=True), envs, range(4)))
    assert_type(episodes, list[Episode])
    assert_type(episodes[0].steps, list[Step])
    assert_type(learner.update(episodes), dict[str, float])
    assert_type(lang_agent.parse_action("go", ["go"]).action, str | None)
    run = start(TrainConfig(steps=1, metrics=("mine:longest",)), Path("run"))
    assert_type(run, Trainer)
    run.run()
