"""TRL's trainers on our worlds: GRPO on whole episodes, SFT on demonstrations; extra ``trl``.

GRPO comes in through ``GRPOTrainer``'s ``rollout_func``. The other way in, ``environment_factory``,
has the model act by tool calls in a chat template made for them, which small models and plain ones
do not have, and puts every observation into a tool's message, where our agents read a transcript.
Here an episode is played by the agents' own loop (:func:`lang_agent.rollout.play`, a
:class:`PolicyAgent` on the trainer's weights), so that prompts agree by construction.

One episode is one sequence: its first prompt, and then answers and what was read between them.
TRL's loss counts the tokens that the model wrote (``env_mask``). This asks for a prompt that only
grows, as a transcript does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.bridges.hf_datasets import library
from lang_agent.episode import Decision, Episode, TextObservation
from lang_agent.errors import LangAgentError, shown
from lang_agent.files import whole
from lang_agent.learn.demonstrations import refuse_evaluation_seeds
from lang_agent.models.codec import Codec
from lang_agent.models.context import TokenContext, common_length
from lang_agent.models.decide import GENERATE, DecideConfig
from lang_agent.models.policy import LanguagePolicy
from lang_agent.rollout import play
from lang_agent.seeding import derive

SEED = "seed "


def seeds_dataset(seeds: Sequence[int]) -> Any:
    """The ``train_dataset`` of a ``GRPOTrainer``: a row for each seed. TRL repeats a row for each
    of its group's ``num_generations``, so that a group plays one seed.

    Its prompts name the seeds; the prompts that are read come from the world. Raises
    :class:`LangAgentError` for seeds of evaluation.
    """
    refuse_evaluation_seeds(seeds)
    return library().Dataset.from_dict({"prompt": [f"{SEED}{seed}" for seed in seeds]})


def episode_return(episode_return: list[float], **_: Any) -> list[float]:
    """The ``reward_funcs`` of a ``GRPOTrainer``: each episode's undiscounted return."""
    return episode_return


class Rollouts:
    """The ``rollout_func`` of a ``GRPOTrainer``: plays an episode for each prompt.

    The model writes its answers freely at the trainer's temperature, top_k, top_p and min_p, since
    TRL's loss is over the whole vocabulary. It plays on the trainer's own parameters, not on a copy
    of them. What the world pays is the return, and ``success`` and ``episode_steps`` go to the
    reward functions too.

    An episode is read on from the tokens as they were written, the one that ended an answer among
    them (:class:`WrittenContext`), so that each token that was drawn is learned after what it was
    drawn after. An episode that outgrows the model's context is learned up to where its oldest
    turns are left out.

    Args:
        make_env: makes one of the environments.
        envs: how many episodes are played at once.
        max_new_tokens: of one answer.
        chat: whether an episode is a conversation in the tokenizer's chat template, each
            observation a message of the user, as for ``--agent chat:MODEL``; unless told, where it
            has one.

    Raises:
        LangAgentError: a model that is not in float32, a prompt that does not grow, or a chat
            template that says an answer otherwise once it has been given.
    """

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env[str, str]],
        *,
        envs: int = 8,
        max_new_tokens: int = 16,
        chat: bool | None = None,
    ) -> None:
        self.envs = [make_env() for _ in range(envs)]
        self.max_new_tokens, self.chat = max_new_tokens, chat
        self.episodes: list[Episode] = []
        """Those of the last call, in the order of the prompts."""
        self._calls = 0
        self._model: Any = None
        self._policy: LanguagePolicy | None = None

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        seeds = [_seed(prompt) for prompt in prompts]
        drawn = (trainer.state.global_step, self._calls, trainer.accelerator.process_index)
        draw_seed = derive(trainer.args.seed, "trl", *drawn)
        self._calls += 1
        played = play(self._agent(trainer), self.envs, seeds, draw_seed=draw_seed)
        self.episodes = sorted(played, key=lambda episode: episode.index)
        end = trainer.processing_class.eos_token_id
        sequences = [as_sequence(episode, end) for episode in self.episodes]
        return {
            "prompt_ids": [one.prompt_ids for one in sequences],
            "completion_ids": [one.completion_ids for one in sequences],
            "logprobs": [one.log_probs for one in sequences],
            "env_mask": [one.mask for one in sequences],
            "episode_return": [episode.total_reward for episode in self.episodes],
            "success": [episode.success for episode in self.episodes],
            "episode_steps": [len(episode.steps) for episode in self.episodes],
        }

    def _agent(self, trainer: Any) -> PolicyAgent:
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self._policy is None or model is not self._model:
            self._model = model
            self._policy = _sharing(model, trainer.processing_class, self.chat)
        decide = DecideConfig(
            GENERATE,
            temperature=trainer.temperature,
            max_new_tokens=self.max_new_tokens,
            top_k=trainer.top_k or 0,
            top_p=trainer.top_p,
            min_p=trainer.min_p or 0.0,
        )
        kind = ConversationAgent if self._policy.chat else WrittenAgent
        return kind(self._policy, len(self.envs), decide)


def _seed(prompt: Any) -> int:
    text = prompt if isinstance(prompt, str) else ""
    number = text.removeprefix(SEED)
    if not text.startswith(SEED) or not number.isdecimal():
        raise LangAgentError(
            f"The prompt {shown(prompt)} names no seed: give the trainer seeds_dataset(...) as its "
            "train_dataset."
        )
    return int(number)


def _sharing(model: Any, tokenizer: Any, chat: bool | None) -> LanguagePolicy:
    """A policy whose parameters are the model's own, in modules of its own: a policy makes its
    modules ready for itself, and the trainer's are to stay as they are."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # of peft's
    kinds = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}
    if kinds != {"float32"}:
        raise LangAgentError(
            f"The model's weights are {', '.join(sorted(kinds))}: load it in float32, as TRL does "
            "by itself, and set bf16 in GRPOConfig to compute in 16 bits."
        )
    memo: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    own = copy.deepcopy(model, memo)
    for name in ("forward", "_original_forward"):  # accelerate's, around the trainer's model
        own.__dict__.pop(name, None)
    return LanguagePolicy(own, tokenizer, chat=chat).eval()


class WrittenContext(TokenContext):
    """An episode's tokens as they were written, and then what the world says.

    In an evaluation an answer that its text would not be cut into again is read anew as text, and
    the token that ended an answer is left out. Here such an answer would begin a new sequence, and
    neither it nor what follows would be learned. Answers that are no action are mostly of this
    kind, so that what is to be unlearned would be left out.
    """

    def __init__(self, codec: Codec, room: int) -> None:
        super().__init__(codec)
        self.room = room
        """The most tokens that a prompt may have."""
        self.end: int | None = None
        """The token that ended the last answer, where it is not among the tokens."""
        self._asked = ""  # the prompt that was read last

    def read(self, prompt: str) -> int:
        prompt = prompt.rstrip(" ")
        before, asked, self._asked = self.token_ids, self._asked, prompt
        known = self._text if prompt.startswith(self._text) else asked
        _, line, new = prompt[len(known) :].partition("\n")  # what is left of the answer's line
        if asked and prompt.startswith(asked) and line:
            world = self.codec.encode(line + new)
            ended = [self.end] if self.end not in (None, world[0]) else []
            kept = len(before)
            if kept + len(ended) + len(world) <= self.room:
                before += [*ended, *world]
                return min(kept, len(before) - 1)
        self.token_ids = self.codec.encode_prompt(prompt)
        return common_length(self.token_ids, before)


class WrittenAgent(PolicyAgent):
    """A policy that reads on from what it wrote, token by token."""

    def __init__(self, policy: LanguagePolicy, slots: int, decide: DecideConfig) -> None:
        super().__init__(policy, slots, decide)
        room = policy.context - decide.max_new_tokens
        self._written = [WrittenContext(policy.codec, room) for _ in range(slots)]
        self._contexts = [*self._written]

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        decisions = super().act(slots, observations)
        for slot, decision in zip(slots, decisions, strict=True):
            trace, context = decision.tokens, self._written[slot]
            if trace is None:
                continue
            left_out = trace.position + 1 + len(trace.token_ids) > len(context.token_ids)
            context.end = trace.token_ids[-1] if left_out else None
        return decisions


class Conversation(TokenContext):
    """An episode's tokens as a conversation: each observation is a message of the user, each answer
    one of the assistant."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._asked = ""  # the prompt that was read last

    def read(self, prompt: str) -> int:
        before, rest = self.token_ids, prompt[len(self._asked) :]
        _, line, new = rest.partition("\n")  # the first line is the answer
        grows = bool(self._asked) and prompt.startswith(self._asked) and bool(line)
        self._asked = prompt
        if grows:
            kept = len(before)
            before += self._turn(new.strip())
            return min(kept, len(before) - 1)
        self.token_ids = self.codec.encode_prompt(prompt.strip())
        return common_length(self.token_ids, before)

    def _turn(self, text: str) -> list[int]:
        """What stands between an answer and the next: the answer's end, and a user's message."""
        tokenizer = self.codec.tokenizer
        asked = [{"role": "user", "content": "x"}]
        later = [{"role": "assistant", "content": "Yes"}, {"role": "user", "content": text}]
        before, whole = (
            str(
                tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
            )
            for messages in (asked, asked + later)
        )
        before += f"{self.codec.lead}Yes"
        if not whole.startswith(before):
            raise LangAgentError(
                "The chat template says an answer otherwise once it has been given, so that an "
                "episode is no single sequence: set tokenizer.chat_template to one that does not, "
                "such as trl.chat_template_utils.get_training_chat_template(tokenizer)."
            )
        return tokenizer.encode(whole[len(before) :], add_special_tokens=False)


class ConversationAgent(PolicyAgent):
    """A policy that reads an episode as a conversation."""

    def __init__(
        self, policy: LanguagePolicy, slots: int, decide: DecideConfig | None = None
    ) -> None:
        super().__init__(policy, slots, decide)
        self._contexts = [Conversation(policy.codec) for _ in range(slots)]


@dataclass(frozen=True)
class EpisodeSequence:
    """An episode as TRL learns from it."""

    prompt_ids: list[int]
    """(P,) the first prompt."""
    completion_ids: list[int]
    """(C,) all that follows."""
    mask: list[int]
    """(C,) 1 for a token that the model wrote."""
    log_probs: list[float]
    """(C,) of the tokens written, under the distribution that they were drawn from; 0 elsewhere."""


def as_sequence(episode: Episode, end: int | None = None) -> EpisodeSequence:
    """The decisions of an episode that share its first prompt's context, as one sequence.

    ``end`` stands behind an episode that is in the sequence as a whole, unless the model wrote it
    there: TRL takes a sequence without it for one that was cut off. Raises :class:`LangAgentError`
    for prompts that do not grow.
    """
    seen = [step.observation.prompt.rstrip(" ") for step in episode.steps]
    if len(seen) > 1 and not seen[1].startswith(seen[0]):
        raise LangAgentError(
            "GRPO learns an episode as one sequence, which asks for a prompt that only grows: use "
            "the 'transcript' prompt, or another with a 'turn' block."
        )
    first = episode.steps[0].trace
    shared = [step.trace for step in episode.steps if step.trace.context is first.context]
    ids = list(first.context)
    mask, log_probs = [0] * len(ids), [0.0] * len(ids)
    for trace in shared:
        for at, written in enumerate(
            zip(trace.token_ids, trace.log_probs, strict=True), trace.position + 1
        ):
            token, log_prob = written
            if at == len(ids):
                ids, mask, log_probs = [*ids, token], [*mask, 0], [*log_probs, 0.0]
            if ids[at] == token:
                mask[at], log_probs[at] = 1, log_prob
    if end is not None and len(shared) == len(episode.steps) and ids[-1] != end:
        ids, mask, log_probs = [*ids, end], [*mask, 0], [*log_probs, 0.0]
    begin = first.position + 1
    return EpisodeSequence(ids[:begin], ids[begin:], mask[begin:], log_probs[begin:])


def sft_dataset(episodes: Iterable[Episode], *, chat: bool = False) -> Any:
    """Demonstrations as the ``train_dataset`` of an ``SFTTrainer``: a row for each action that is
    to be learned, with ``prompt`` and ``completion``.

    The prompt is what a policy reads, the completion a space and the phrase (with ``chat`` they are
    messages); the token that ends a text, which TRL puts behind it, ends the answer. Raises
    :class:`LangAgentError` without the extra, or where there is nothing to learn.
    """
    pairs = [
        (step.observation.prompt.rstrip(" "), step.observation.expert)
        for episode in episodes
        for step in episode.steps
        if step.observation.expert is not None
    ]
    if not pairs:
        raise LangAgentError("There is no action to learn in these demonstrations.")
    rows: list[dict[str, Any]] = [
        {"prompt": prompt, "completion": f" {phrase}"} for prompt, phrase in pairs
    ]
    if chat:
        rows = [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "completion": [{"role": "assistant", "content": phrase}],
            }
            for prompt, phrase in pairs
        ]
    return library().Dataset.from_list(rows)


def write_sft(folder: Path, episodes: Iterable[Episode]) -> int:
    """Write :func:`sft_dataset` to a folder, for ``datasets.load_from_disk``; returns how many
    rows. Raises :class:`LangAgentError` as it does, and for a folder that is there already."""
    if folder.exists():
        raise LangAgentError(f"'{folder}' is there already: choose another.")
    rows = sft_dataset(episodes)
    with whole(folder) as beside:
        rows.save_to_disk(str(beside))
    return len(rows)
