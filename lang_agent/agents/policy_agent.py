"""The language policy as an agent: what it reads stays encoded, and it scores or writes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from lang_agent.episode import Agent, Decision, TextObservation, TokenTrace
from lang_agent.errors import LangAgentError
from lang_agent.language_env import PromptLimit
from lang_agent.models.context import TokenContext, common_length
from lang_agent.models.decide import GENERATE, DecideConfig
from lang_agent.models.generation import write
from lang_agent.models.kv_cache import RaggedCache
from lang_agent.models.phrase_scoring import lay_out
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sampling import sample
from lang_agent.models.trie import NO_PHRASES
from lang_agent.text_env.action_parser import CLOSING, MARKER, OPENING, answer_part

WORTH_A_PASS = 16  # tokens that pay for a forward pass of their own


class PolicyAgent(Agent):
    """A language policy acting in up to ``slots`` episodes at once.

    While an episode's prompt only grows, its keys and values stay and each token is encoded once.
    A prompt that starts anew keeps whatever it shares with the one before it; what all new episodes
    begin with, and what several have alike, is encoded once for all of them.

    Args:
        decide: how text becomes a decision, and at what temperature; by default the phrases are
            scored and one is drawn.
        critic: whether to value the states in which episodes are cut off.
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        slots: int,
        decide: DecideConfig | None = None,
        *,
        critic: bool = False,
    ) -> None:
        self.policy, self.decide, self.slots = policy, decide or DecideConfig(), slots
        self._draws = [random.Random(0) for _ in range(slots)]
        self.prompt_limit, self.critic = self._prompt_limit(), critic
        self._version, self.words = policy.version, policy.words
        self._cache = RaggedCache(slots + 1)  # the last row holds the common beginning
        self._common: list[int] | None = None
        self._contexts = [TokenContext(policy.codec) for _ in range(slots)]
        self._cached = [0] * slots  # how many of the context's tokens have keys in the cache

    def _prompt_limit(self) -> PromptLimit:
        """What the model's context leaves room for."""
        policy = self.policy
        count, room = policy.codec.count_tokens, policy.context - policy.codec.overhead
        if self.decide.decide == GENERATE:
            return PromptLimit(room - self.decide.max_new_tokens, count)
        return PromptLimit(room, count, with_phrase=True)

    def begin(self, slot: int, seed: int) -> None:
        self._draws[slot] = random.Random(seed)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        if not slots:
            return []
        starts = self._read(slots, observations)
        act = self._write if self.decide.decide == GENERATE else self._choose
        return act(slots, observations, starts)

    @torch.no_grad()
    def values(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[float]:
        starts = self._read(slots, observations)
        rows = [self._tokens(slot)[start:] for slot, start in zip(slots, starts, strict=True)]
        ends = [[len(row) - 1] for row in rows]
        none = [[NO_PHRASES]] * len(rows)
        layout = lay_out(rows, starts, ends, none, self.policy.device)
        where = torch.tensor(slots, device=self.policy.device)
        states = self.policy.hidden_states(layout, self._cache, where, decisions_only=True)
        return self.policy.values(states, layout).tolist()

    def _forget_stale(self) -> None:
        """Begin a new cache where the policy has changed since the last one was begun."""
        if self.policy.version != self._version:
            self._version = self.policy.version
            self._cache = RaggedCache(len(self._contexts) + 1)
            self._common, self._cached = None, [0] * len(self._contexts)

    def _read(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[int]:
        """Go on to the prompts; returns how many tokens of each need not be encoded again."""
        self._forget_stale()
        starts = [
            min(self._contexts[slot].read(seen.prompt), self._cached[slot])
            for slot, seen in zip(slots, observations, strict=True)
        ]
        return self._prefill_long(
            slots, self._prefill_alike(slots, self._prefill_common(slots, starts))
        )

    @torch.no_grad()
    def _choose(
        self,
        slots: Sequence[int],
        observations: Sequence[TextObservation],
        starts: Sequence[int],
    ) -> list[Decision]:
        """Weigh the admissible phrases of every observation in one forward pass."""
        policy, temperature = self.policy, self.decide.temperature
        tries, rows, ends = [], [], []
        for slot, observation, start in zip(slots, observations, starts, strict=True):
            if observation.actions is None:
                raise LangAgentError(
                    "This environment gives no admissible actions to score: use --decide generate."
                )
            policy.check_fits(len(self._tokens(slot)), observation.actions)
            tries.append(policy.trie(observation.actions, self.decide.decide))
            rows.append(self._tokens(slot)[start:])
            ends.append([len(rows[-1]) - 1])
        layout = lay_out(rows, starts, ends, [[trie] for trie in tries], policy.device)
        where = torch.tensor(slots, device=policy.device)
        states = policy.hidden_states(layout, self._cache, where, decisions_only=True)
        scores = policy.scores(states, layout, tries, temperature or 1.0)
        choices = sample(
            scores.log_policy, temperature, [self._draws[slot].random() for slot in slots]
        )
        log_probs, mask = scores.of(choices)
        decisions = []
        for observation, slot, choice, value, row, counts, probabilities in zip(
            observations,
            slots,
            choices.tolist(),
            policy.values(states, layout).tolist(),
            log_probs.tolist(),
            mask.sum(1).tolist(),
            scores.log_policy.exp().tolist(),
            strict=True,
        ):
            actions = observation.actions or ()
            action = actions[choice]
            self._cached[slot] = len(self._tokens(slot))
            trace = self._contexts[slot].take(observation.prompt, action)
            trace = replace(trace, log_probs=row[:counts], value=value)
            decisions.append(Decision(action, choice, trace, probabilities[: len(actions)]))
        return decisions

    def _write(
        self,
        slots: Sequence[int],
        observations: Sequence[TextObservation],
        starts: Sequence[int],
    ) -> list[Decision]:
        """Write free text after every prompt, up to the end of its answer."""
        policy = self.policy
        asked = [seen.line or seen.prompt.rstrip().endswith(MARKER) for seen in observations]
        for slot in slots:
            policy.check_fits(len(self._tokens(slot)), ("x",))
        written = write(
            policy,
            self._cache,
            slots,
            [self._tokens(slot)[start:] for slot, start in zip(slots, starts, strict=True)],
            starts,
            self.decide,
            finished=lambda row, text: _answer(text, asked[row]) is not None,
            stops=policy.tokens_with("\n"),
            draws=[self._draws[slot] for slot in slots],
        )
        decisions = []
        for slot, seen, record, was_asked in zip(slots, observations, written, asked, strict=True):
            context = self._contexts[slot]
            answer = _answer(record.text, was_asked)
            self._cached[slot] = len(context.token_ids) + len(record.token_ids) - 1
            # A token that ends the answer is learned, but what goes on from there has its own end.
            ended = answer is not None or record.token_ids[-1] in policy.end_tokens
            kept = record.token_ids[:-1] if ended else record.token_ids
            answer = record.text if answer is None else answer
            trace = TokenTrace(
                context.token_ids,
                len(context.token_ids) - 1,
                record.token_ids,
                record.log_probs,
                record.value,
            )
            context.answer(seen.prompt, policy.decode(kept), kept)
            whole = seen.actions is None and not seen.line  # the text itself is what is judged
            decisions.append(Decision(answer if whole else answer.strip(), tokens=trace))
        return decisions

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        return [self.policy.decode([token]) for token in token_ids]

    def record(
        self, slot: int, observation: TextObservation, action: str, choice: int | None
    ) -> Decision:
        """A decision that was made elsewhere, as one to learn from: the model is not run, and there
        are no log-probabilities."""
        context = self._contexts[slot]
        self._cached[slot] = min(context.read(observation.prompt), self._cached[slot])
        return Decision(action, choice, context.take(observation.prompt, action))

    def _tokens(self, slot: int) -> list[int]:
        return self._contexts[slot].token_ids

    def _prefill_common(self, slots: Sequence[int], starts: Sequence[int]) -> list[int]:
        """Take the common beginning of new contexts from the cache's last row."""
        new = [slot for slot, start in zip(slots, starts, strict=True) if start == 0]
        last = self._cache.rows - 1
        if self._common is None and len(new) > 1:
            common = self._tokens(new[0])
            for slot in new[1:]:
                common = common[: common_length(self._tokens(slot), common)]
            self._common = common if len(common) >= WORTH_A_PASS else []
            if self._common:
                self._encode([last], [self._common], [0])
        if not self._common:
            return list(starts)
        found = list(starts)
        for at, slot in enumerate(slots):
            shared = common_length(self._tokens(slot), self._common)
            if shared > found[at]:
                self._cache.copy(last, slot, shared)
                found[at] = shared
        return found

    def _prefill_alike(self, slots: Sequence[int], starts: Sequence[int]) -> list[int]:
        """Encode what several slots have to read alike, as the episodes of a group have, once."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for at, (slot, start) in enumerate(zip(slots, starts, strict=True)):
            context = self._tokens(slot)
            if len(context) - start >= WORTH_A_PASS // 2:
                alike.setdefault(tuple(context), []).append(at)
        groups = [group for group in alike.values() if len(group) > 1]
        found = list(starts)
        if groups:
            first = [group[0] for group in groups]
            rows = [self._tokens(slots[at])[starts[at] : -1] for at in first]
            self._encode([slots[at] for at in first], rows, [starts[at] for at in first])
        for group in groups:
            length = len(self._tokens(slots[group[0]])) - 1
            for at in group[1:]:
                self._cache.copy(slots[group[0]], slots[at], length)
            for at in group:
                found[at] = length
        return found

    def _prefill_long(self, slots: Sequence[int], starts: Sequence[int]) -> list[int]:
        """Encode what is much longer than usual on its own: all rows of a pass are as wide as its
        longest."""
        new = [len(self._tokens(slot)) - start for slot, start in zip(slots, starts, strict=True)]
        usual = sorted(new)[len(new) // 2]
        long = [at for at, count in enumerate(new) if count > 2 * usual + WORTH_A_PASS]
        found = list(starts)
        if long:
            rows = [self._tokens(slots[at])[starts[at] : -1] for at in long]
            self._encode([slots[at] for at in long], rows, [starts[at] for at in long])
            for at in long:
                found[at] = len(self._tokens(slots[at])) - 1
        return found

    @torch.no_grad()
    def _encode(
        self, slots: Sequence[int], rows: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> None:
        """Put the tokens' keys and values into the cache."""
        none = [[0]] * len(rows), [[NO_PHRASES]] * len(rows)
        layout = lay_out(rows, starts, *none, self.policy.device)
        where = torch.tensor(slots, device=self.policy.device)
        self.policy.hidden_states(layout, self._cache, where, decisions_only=True)


def _answer(text: str, asked: bool) -> str | None:
    """What was written up to the newline that ends the answer; None while it goes on.

    The answer begins where the prompt ``asked`` for it, or else after the marker in the text; or it
    stands between marks.
    """
    if OPENING in text and CLOSING in text:
        return answer_part(text)
    if not asked and MARKER not in text:
        return None
    begin = 0 if asked else text.rindex(MARKER) + len(MARKER)
    while text[begin : begin + 1].isspace():
        begin += 1
    end = text.find("\n", begin)
    return None if end < 0 else text[:end]
