"""The policy: a causal language model that says which admissible phrase comes next."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lang_agent.errors import LangAgentError, PromptError, unknown
from lang_agent.models import architecture, masks, probe, saved
from lang_agent.models.codec import Codec, end_tokens
from lang_agent.models.decide import RULES
from lang_agent.models.generation import generate
from lang_agent.models.gpt2 import new_gpt2
from lang_agent.models.hub import shipped
from lang_agent.models.kv_cache import RaggedCache
from lang_agent.models.last_block import asking
from lang_agent.models.load import load, no_progress_bars
from lang_agent.models.lora import has_lora
from lang_agent.models.memo import Memo
from lang_agent.models.phrase_scoring import Head, Layout, Scores, lay_out, score_phrases
from lang_agent.models.precision import choose_precision
from lang_agent.models.sharding import Shards, gathered
from lang_agent.models.trie import TokenTrie, batch_tries, build_trie, refuse_equal


class States(NamedTuple):
    """(B, W, H) hidden states: of the last layer, and of the one that the value is read from."""

    last: Tensor
    for_value: Tensor


class LanguagePolicy(nn.Module):
    """A causal language model, its tokenizer and a value head.

    ``model`` and ``tokenizer`` are the transformers objects. The value of a state is read from the
    hidden state of its prompt's last token.

    Args:
        precision: "fp32", "bf16" or "auto", what measures faster on the device. Weights stay
            float32; bf16 is what products are computed in.
        value_layer: the value head reads the output of this layer: 0 is the embeddings', -1 the
            last's.
        chat: whether prompts are a user's messages to an assistant, in the tokenizer's chat
            template; by default where it has one (:mod:`lang_agent.models.codec`).

    Raises:
        LangAgentError: a model whose scores are not those of its plain passes
            (:mod:`lang_agent.models.probe`), or a tokenizer with more tokens than the model.
    """

    words: Mapping[str, Any] | None = None
    """Of a policy that was trained here: the text options (prompt, renderer, ...) that it knows."""
    config_file: Path | None = None
    """Where these stood; None where they are of this process."""
    shards: Shards | None = None
    """Where the weights are shared out among processes: :mod:`lang_agent.models.sharding`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        precision: str = "fp32",
        value_layer: int = -1,
        chat: bool | None = None,
    ) -> None:
        super().__init__()
        architecture.check_vocabulary(model, tokenizer)
        nn.Module.float(model)  # transformers' own refuses models that came as GGUF
        expected = probe.expect(model)
        self.model, self.tokenizer = architecture.make_ready(model), tokenizer
        config = model.config.get_text_config(decoder=True)
        layers = int(config.num_hidden_layers)
        if not -layers - 1 <= value_layer <= layers:
            raise LangAgentError(
                f"value_layer={value_layer}, but the model has {layers} layers: use 0 to {layers}, "
                "or -1 for the last."
            )
        self.value_layer = value_layer
        last = model.get_output_embeddings().weight.shape[1]  # what goes into the head
        width = last if value_layer == -1 else config.hidden_size
        self.value_head = nn.Linear(width, 1, device=model.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.context = architecture.context_of(config)
        self.codec = Codec(tokenizer, chat)
        self.end_tokens = end_tokens(model, tokenizer)
        self._after_head = architecture.after_head(config)
        self._copies: dict[Tensor, tuple[int, Tensor]] = {}
        self.trie = Memo(self._trie, 4096)
        self.tokens_with = Memo(self.codec.tokens_with, 8)
        self._trie_batch = Memo(batch_tries, 64)
        self.precision = torch.float32
        probe.check(self, expected)
        self.set_precision(precision)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy, or another process, needs: everything but what is computed again."""
        state = {**self.__dict__, "_copies": {}}
        state.pop("_layer_matrices", None)
        return state

    def forget_copies(self) -> None:
        """Drop the weights in reduced precision that are kept beside the model's."""
        self._copies.clear()
        self.__dict__.pop("_layer_matrices", None)

    @property
    def version(self) -> tuple[int, torch.device, torch.dtype]:
        """What changes whenever the weights do, or where and in what precision they are used: what
        was computed under another version is stale."""
        parameters = self.parameters() if self.shards is None else self.shards.parameters
        changes = sum(parameter._version for parameter in parameters)
        return changes, self.device, self.precision

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        gguf_file: str | None = None,
        device: str | None = None,
        precision: str = "fp32",
        chat: bool | None = None,
        trust: bool = False,
    ) -> LanguagePolicy:
        """Load a causal language model of transformers from a directory or the hub.

        A directory written by :meth:`save_pretrained` brings its value head, and whether it is
        used by its chat template; any other model gets a new value head, which says 0, and is used
        by its template if it has one. "babyai" ships; "smollm2" is SmolLM2-135M-Instruct, from the
        extra of that name.

        Args:
            chat: instead of what the directory says.
            trust: run Python code that comes with the model.

        Raises:
            LangAgentError: nothing whole can be loaded from there, or the model cannot be a policy.
        """
        model, tokenizer = load(path_or_id, gguf_file, trust=trust)
        record = saved.read(Path(shipped(path_or_id)))
        chat = record.chat if chat is None else chat
        policy = cls(model, tokenizer, value_layer=record.layer, chat=chat)
        if record.head is not None:
            saved.put_back(record.head, policy.value_head, path_or_id)
        policy.to(device or "cpu").eval()
        policy.set_precision(precision)
        return policy

    @classmethod
    def from_scratch(
        cls,
        size: str = "nano",
        *,
        seed: int,
        texts: Iterable[str] | None = None,
        names: Sequence[str] = (),
        context: int | None = None,
        prose: bool = False,
    ) -> LanguagePolicy:
        """A GPT-2 with random weights and a tokenizer of its own.

        Args:
            size: one of ``gpt2.SIZES``.
            seed: of the weights; the same seed and texts give the same policy.
            texts: what the tokenizer is trained on, such as prompts of your environment; by
                default prompts of random play in BabyAI's MixedLocal.
            names: words that others may stand for (a wording's ``names``); with any, a name that
                the texts do not have is one token, of 1024, by its hash.
            context: the most tokens it reads; the size's own by default.
            prose: tokens never cross words, as for a model that goes on from any prompt.
        """
        made = new_gpt2(size, seed=seed, texts=texts, names=names, context=context, prose=prose)
        return cls(*made).eval()

    def save_pretrained(self, directory: str | Path, *, half: bool = False) -> None:
        """Write the model (of one with LoRA, its adapter), tokenizer and value head; plain
        transformers can load the first two. ``half``: the model's weights in 16 bits. Where the
        weights are shared out, all processes gather them (:meth:`whole_weights`) at once."""
        directory = Path(directory)
        model = copy.deepcopy(self.model).half() if half else self.model
        weights, head = self.whole_weights()
        with no_progress_bars():
            model.save_pretrained(directory, state_dict=weights)
            self.tokenizer.save_pretrained(directory)
        saved.write(directory, saved.Saved(head, self.value_layer, self.chat))

    def whole_weights(self) -> tuple[dict[str, Tensor] | None, dict[str, Tensor]]:
        """What is saved of the model, None for what it has itself, and of the value head."""
        head = self.value_head.state_dict()
        if self.shards is None:
            return None, head
        weights = self.model.state_dict(keep_vars=True)
        if has_lora(self.model):  # the adapter alone is saved
            weights = {name: weight for name, weight in weights.items() if "lora_" in name}
        return gathered(weights), gathered(head)

    def set_precision(self, precision: str) -> None:
        """Compute in "fp32" or "bf16" from now on; "auto" measures which the device is fast at."""
        self.precision = choose_precision(precision, self.device, self.width)

    # -- words ---------------------------------------------------------------------------------

    @property
    def chat(self) -> bool:
        """Whether prompts are messages in the tokenizer's chat template."""
        return self.codec.chat

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that goes on from another."""
        return self.codec.encode(text)

    def encode_prompt(self, prompt: str) -> list[int]:
        """A prompt's token ids, without its trailing space (the phrase brings one)."""
        return self.codec.encode_prompt(prompt)

    def encode_action(self, action: str) -> list[int]:
        """A phrase's token ids, as the answer to a prompt."""
        return self.codec.encode_action(action)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens that go on from others, special tokens left out."""
        return self.codec.decode(token_ids)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text takes."""
        return self.codec.count_tokens(text)

    def _trie(self, actions: tuple[str, ...], rule: str = "sum") -> TokenTrie:
        if not actions:
            raise LangAgentError("There is no admissible action to score: the list is empty.")
        if rule not in RULES:
            raise unknown("rule for scoring", rule, RULES)
        phrases = [self.encode_action(action) for action in actions]
        for action, phrase in zip(actions, phrases, strict=True):
            if len(phrase) >= self.context:
                raise PromptError(
                    f"The action {action[:40]!r}... takes {len(phrase)} tokens, and the model's "
                    f"context is {self.context}: shorten it, or use a model with a longer context."
                )
        if rule == "constrained":
            refuse_equal(actions, phrases)
        return build_trie(
            phrases,
            rule,
            words=[len(action.split()) for action in actions],
            end=(self.encode("\n") or [*self.end_tokens] or [0])[-1],
        )

    def prompt_budget(self, actions: Sequence[str]) -> int:
        """The most tokens a prompt may have so that any of the phrases still fits behind it."""
        return self.context - max(len(self.encode_action(action)) for action in actions)

    def check_fits(self, prompt_tokens: int, actions: Sequence[str]) -> None:
        """Raise :class:`PromptError` unless a prompt and its longest phrase fit the context."""
        if prompt_tokens > self.prompt_budget(actions):
            raise PromptError(
                f"A prompt of {prompt_tokens} tokens and its actions exceed the model's context of "
                f"{self.context}: use a model with a longer context or a shorter template."
            )

    # -- scores --------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.value_head.weight.device

    @property
    def compiles_shapes(self) -> bool:
        """Whether products of a new shape take long: oneDNN writes a program for each, in bf16."""
        return self.precision == torch.bfloat16 and self.device.type == "cpu"

    @property
    def width(self) -> int:
        """The hidden units of a layer."""
        return int(self.model.config.get_text_config(decoder=True).hidden_size)

    def hidden_states(
        self,
        layout: Layout,
        cache: RaggedCache | None = None,
        rows: Tensor | None = None,
        *,
        decisions_only: bool = False,
    ) -> States:
        """The hidden states of a layout's tokens.

        With a ``cache``, the tokens follow the keys of its ``rows`` (B,) and are added to them.
        With ``decisions_only`` states of the last layer may be anything where :meth:`scores` and
        :meth:`values` do not look, which leaves out their work.
        """
        if self.shards is not None:
            self.shards.before_pass()
        return self.read(layout, cache, rows, decisions_only=decisions_only)

    def read(
        self,
        layout: Layout,
        cache: RaggedCache | None = None,
        rows: Tensor | None = None,
        *,
        decisions_only: bool = False,
    ) -> States:
        """One pass of the model, of which nobody else is told."""
        plain = cache is None and not layout.branching
        if cache is not None and rows is not None:
            keys = cache.aim(rows, layout.slot)
        else:
            keys = layout.token_ids.shape[1]
        inputs: dict[str, Any] = {
            "input_ids": layout.token_ids,
            "past_key_values": cache,
            "use_cache": cache is not None,
            "output_hidden_states": self.value_layer != -1,
        }
        if not plain:  # else positions count up from 0: padding is on the right, nobody looks there
            inputs["position_ids"] = layout.position
        if layout.branching and cache is None:
            # Given positions alone, transformers would take branches for sequences packed together.
            inputs["attention_mask"] = torch.ones_like(layout.token_ids)
        asked = layout.asked() if decisions_only and self.shards is None else None
        with masks.reading(layout, keys, self.precision, plain=plain), asking(asked):
            output = self._forward(inputs)
        last = output.last_hidden_state
        for_value = last if self.value_layer == -1 else output.hidden_states[self.value_layer]
        return States(last.to(self.precision), for_value.float())

    def _forward(self, inputs: dict[str, Any]) -> Any:
        base = architecture.base_of(self.model)
        if self.precision == torch.float32:
            return base(**inputs)
        with torch.autocast(self.device.type, dtype=self.precision):
            if torch.is_grad_enabled() or self.shards is not None:
                return base(**inputs)
            return functional_call(base, self._matrices(), kwargs=inputs)

    def _matrices(self) -> dict[str, Tensor]:
        """The layers' matrices in reduced precision, kept until they change: acting would
        otherwise round every weight at every step."""
        return {name: self._reduced(weight) for name, weight in self._layer_matrices}

    @cached_property
    def _layer_matrices(self) -> list[tuple[str, nn.Parameter]]:
        embeddings = {
            weight
            for module in self.model.modules()
            if isinstance(module, nn.Embedding)
            for weight in module.parameters()
        }
        return [
            (name, weight)
            for name, weight in architecture.base_of(self.model).named_parameters()
            if weight.ndim == 2 and weight not in embeddings
        ]

    def _reduced(self, weight: Tensor) -> Tensor:
        """``weight`` in the policy's precision; without gradients, from a copy kept for it."""
        passing = torch.is_grad_enabled() or self.shards is not None
        if weight.dtype == self.precision or passing:
            return weight.to(self.precision)
        version, copy = self._copies.get(weight, (-1, weight))
        stale = version != weight._version or copy.device != weight.device
        if stale or copy.dtype != self.precision:
            copy = weight.detach().to(self.precision)
            self._copies[weight] = (weight._version, copy)
        return copy

    def action_log_probs(
        self, prompts: Sequence[str], actions: Sequence[Any], *, rule: str = "sum"
    ) -> Tensor:
        """The log-policy over each prompt's admissible phrases.

        Args:
            prompts: B prompts.
            actions: the phrases: one list for all prompts, or B lists.
            rule: how tokens make phrases; see :mod:`lang_agent.models.phrase_scoring`.

        Returns:
            (B, A) log-probabilities, each row normalised over its own phrases; -inf where a row
            has fewer than A. Gradients flow unless the caller switches them off.

        Raises:
            PromptError: a prompt and its longest phrase exceed the context.
        """
        shared = not actions or isinstance(actions[0], str)
        per_prompt = [actions] * len(prompts) if shared else actions
        if len(per_prompt) != len(prompts):
            raise LangAgentError(f"{len(prompts)} prompts but {len(per_prompt)} lists of actions.")
        rows = [self.encode_prompt(prompt) for prompt in prompts]
        tries = [self.trie(tuple(names), rule) for names in per_prompt]
        for row, names in zip(rows, per_prompt, strict=True):
            self.check_fits(len(row), names)
        ends = [[len(row) - 1] for row in rows]
        layout = lay_out(rows, [0] * len(rows), ends, [[trie] for trie in tries], self.device)
        states = self.hidden_states(layout, decisions_only=True)
        return self.scores(states, layout, tries).log_policy

    def scores(
        self,
        states: States,
        layout: Layout,
        tries: Sequence[TokenTrie],
        temperature: float = 1.0,
    ) -> Scores:
        """The policy over the phrases of D decisions; ``tries`` has one for each."""
        distinct = tuple(dict.fromkeys(tries))
        index = {trie: at for at, trie in enumerate(distinct)}
        which = torch.tensor([index[trie] for trie in tries], device=self.device)
        trie_batch = self._trie_batch(distinct, self.device)
        return score_phrases(states.last, layout, trie_batch, which, self._head(), temperature)

    def token_logits(self, states: Tensor) -> Tensor:
        """(N, V) float32 logits over the vocabulary from (N, H) last hidden states."""
        return self._head().logits(states)

    def _head(self) -> Head:
        """The language-model head in the policy's precision."""
        head = self.model.get_output_embeddings()
        bias = getattr(head, "bias", None)
        return Head(self._reduced(head.weight), bias, *self._after_head)

    def generate(self, prompts: Sequence[str], **options: Any) -> list[str]:
        """Free text after each prompt; see :func:`lang_agent.models.generation.generate`."""
        return generate(self, prompts, **options)

    def values(self, states: States, layout: Layout) -> Tensor:
        """(D,) the value head's estimate of the return from each decision on."""
        at_decision = states.for_value[layout.decision_row, layout.decision_column]
        return self.value_head(at_decision).squeeze(-1)
