"""The policy: a causal language model that says which admissible phrase comes next."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lang_agent import models
from lang_agent.action_tree import ActionTree, Forest, build_tree, plant, refuse_equal
from lang_agent.cache import RaggedCache
from lang_agent.config import RULES
from lang_agent.errors import LangAgentError, unknown
from lang_agent.precision import choose_precision
from lang_agent.prompt import PromptError
from lang_agent.scoring import Layout, Scores, head_logits, lay_out, score_phrases
from lang_agent.tokenizer import known_words, shared_out

_LINES = re.compile(r"(?<=\S)(?=\n\S)")
_PROBE = "Goal: go to the red ball\nYou see a wall 3 steps left\n\nAction: go\nYou see 2 keys"
VALUE_FILE = "value_head.safetensors"


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
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        precision: str = "fp32",
        value_layer: int = -1,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = models.make_ready(model), tokenizer
        layers = int(model.config.num_hidden_layers)
        if not -layers - 1 <= value_layer <= layers:
            raise LangAgentError(
                f"value_layer={value_layer}, but the model has {layers} layers: use 0 to {layers}, "
                "or -1 for the last."
            )
        self.value_layer = value_layer
        self.value_head = nn.Linear(model.config.hidden_size, 1, device=model.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or 1024)
        self._known_words = known_words(tokenizer)
        self._copies: dict[Tensor, tuple[int, Tensor]] = {}
        self._memory = lru_cache(maxsize=65536)(self._encode)
        self.tree = lru_cache(maxsize=4096)(self._tree)
        self.tokens_with = lru_cache(maxsize=8)(self._tokens_with)
        self._forest = lru_cache(maxsize=64)(self._plant)
        by_line = [token for line in _LINES.split(_PROBE) for token in self._encode(line)]
        self._line_by_line = by_line == self._encode(_PROBE)
        self.set_precision(precision)
        models.check_head(self.model)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        gguf_file: str | None = None,
        device: str | None = None,
        precision: str = "fp32",
    ) -> LanguagePolicy:
        """Load a causal language model of transformers from a directory or the hub.

        A directory written by :meth:`save_pretrained` brings its value head; any other model gets
        a new one. "nano" is the policy that comes with this package; "smollm2" is
        SmolLM2-135M-Instruct, from the extra of that name.
        Raises :class:`LangAgentError` when nothing whole can be loaded from there.
        """
        model, tokenizer = models.load(path_or_id, gguf_file)
        value_file = Path(models.shipped(path_or_id)) / VALUE_FILE
        if not value_file.is_file():
            policy = cls(model, tokenizer)
        else:
            with safe_open(value_file, "pt") as file:
                layer = int((file.metadata() or {}).get("layer", -1))
                policy = cls(model, tokenizer, value_layer=layer)
                head = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                policy.value_head.load_state_dict(head)
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
            size: one of ``models.SIZES``.
            seed: of the weights; the same seed and texts give the same policy.
            texts: what the tokenizer is trained on, such as prompts of your environment; by
                default prompts of random play in BabyAI's MixedLocal.
            names: words that shall be tokens of their own beside whatever others; with any, a word
                that the texts do not have is one token too (:mod:`lang_agent.tokenizer`).
            context: the most tokens it reads; the size's own unless told.
            prose: tokens never cross words, as for a model that goes on from any prompt.
        """
        made = models.new_gpt2(
            size, seed=seed, texts=texts, names=names, context=context, prose=prose
        )
        return cls(*made).eval()

    def save_pretrained(self, directory: str | Path, *, half: bool = False) -> None:
        """Write the model (of one with LoRA, its adapter), tokenizer and value head; plain
        transformers can load the first two. ``half``: the model's weights in 16 bits."""
        directory = Path(directory)
        model = copy.deepcopy(self.model).half() if half else self.model
        with models.no_progress_bars():
            model.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)
        head = self.value_head.state_dict()
        save_file(head, directory / VALUE_FILE, {"layer": str(self.value_layer)})

    def set_precision(self, precision: str) -> None:
        """Compute in "fp32" or "bf16" from now on; "auto" measures which the device is fast at."""
        self.precision = choose_precision(precision, self.device)

    # -- words ---------------------------------------------------------------------------------

    def _encode(self, line: str) -> list[int]:
        if self._known_words:
            line = shared_out(line, self._known_words)
        return self.tokenizer.encode(line, add_special_tokens=False)

    def encode(self, text: str) -> list[int]:
        """Token ids, line by line through a memory: the lines of a world repeat.

        In a byte-level BPE vocabulary (GPT-2's and ours among them) a newline between two visible
        characters starts a new piece, so that the lines' tokens are the text's tokens, and a
        prompt that grows by whole lines keeps the tokens it has. Other tokenizers get whole texts.
        """
        if not self._line_by_line:
            return self._encode(text)
        return [token for line in _LINES.split(text) for token in self._memory(line)]

    def encode_prompt(self, prompt: str) -> list[int]:
        """A prompt's token ids, without its trailing space (the phrase brings one)."""
        return self.encode(prompt.rstrip(" ")) or [self.tokenizer.bos_token_id or 0]

    def encode_action(self, action: str) -> list[int]:
        """A phrase's token ids: a space and the phrase."""
        if not action.strip():
            raise LangAgentError(f"An action must have words: {action!r} has none.")
        return self.encode(f" {action}")

    def count_tokens(self, text: str) -> int:
        """How many tokens a text takes."""
        return len(self.encode(text))

    def _tokens_with(self, char: str) -> frozenset[int]:
        """The tokens whose text holds ``char``: after no other can a text have come to end so."""
        vocabulary = len(self.tokenizer)
        texts = self.tokenizer.batch_decode([[token] for token in range(vocabulary)])
        return frozenset(token for token, text in enumerate(texts) if char in text)

    def _tree(self, actions: tuple[str, ...], rule: str = "sum") -> ActionTree:
        if not actions:
            raise LangAgentError("There is no admissible action to score: the list is empty.")
        if rule not in RULES:
            raise unknown("rule for scoring", rule, RULES)
        phrases = [self.encode_action(action) for action in actions]
        if rule == "constrained":
            refuse_equal(actions, phrases)
        return build_tree(
            phrases,
            rule,
            words=[len(action.split()) for action in actions],
            end=self._encode("\n")[-1],
        )

    def _plant(self, trees: tuple[ActionTree, ...]) -> Forest:
        return plant(trees, self.device)

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

    def hidden_states(
        self, layout: Layout, cache: RaggedCache | None = None, rows: Tensor | None = None
    ) -> States:
        """The hidden states of a layout's tokens.

        With a ``cache``, the tokens follow the keys of its ``rows`` (B,) and are added to them.
        """
        mask = None  # plain causal attention: padding is on the right and nobody looks at it
        if cache is not None and rows is not None:
            mask = layout.mask(cache.aim(rows, layout.slot), self.precision)
        elif layout.branching:
            mask = layout.mask(layout.token_ids.shape[1], self.precision)
        inputs = {
            "input_ids": layout.token_ids,
            # Told positions that begin anew in the padding, transformers sees packed sequences and
            # makes a mask for them; without, they count up from 0, which is right here.
            "position_ids": None if mask is None else layout.position,
            "attention_mask": mask,
            "past_key_values": cache,
            "use_cache": cache is not None,
            "output_hidden_states": self.value_layer != -1,
        }
        base = self.model.base_model
        if self.precision == torch.float32:
            output = base(**inputs)
        else:
            with torch.autocast(self.device.type, dtype=self.precision):
                if torch.is_grad_enabled():
                    output = base(**inputs)
                else:
                    output = functional_call(base, self._matrices(), kwargs=inputs)
        last = output.last_hidden_state
        for_value = last if self.value_layer == -1 else output.hidden_states[self.value_layer]
        return States(last.to(self.precision), for_value.float())

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
            for name, weight in self.model.base_model.named_parameters()
            if weight.ndim == 2 and weight not in embeddings
        ]

    def _reduced(self, weight: Tensor) -> Tensor:
        """``weight`` in the policy's precision; without gradients, from a copy kept for it."""
        if weight.dtype == self.precision or torch.is_grad_enabled():
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
            rule: how tokens make phrases; see :mod:`lang_agent.scoring`.

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
        trees = [self.tree(tuple(names), rule) for names in per_prompt]
        for row, names in zip(rows, per_prompt, strict=True):
            self.check_fits(len(row), names)
        ends = [[len(row) - 1] for row in rows]
        layout = lay_out(rows, [0] * len(rows), ends, [[tree] for tree in trees], self.device)
        return self.scores(self.hidden_states(layout), layout, trees).log_policy

    def scores(
        self,
        states: States,
        layout: Layout,
        trees: Sequence[ActionTree],
        temperature: float = 1.0,
    ) -> Scores:
        """The policy over the phrases of D decisions; ``trees`` has one for each."""
        distinct = tuple(dict.fromkeys(trees))
        index = {tree: at for at, tree in enumerate(distinct)}
        which = torch.tensor([index[tree] for tree in trees], device=self.device)
        head = self.model.get_output_embeddings()
        bias = getattr(head, "bias", None)
        forest = self._forest(distinct)
        weight = self._reduced(head.weight)
        return score_phrases(states.last, layout, forest, which, weight, bias, temperature)

    def token_logits(self, states: Tensor) -> Tensor:
        """(N, V) float32 logits over the vocabulary from (N, H) last hidden states."""
        head = self.model.get_output_embeddings()
        bias = getattr(head, "bias", None)
        return head_logits(states, self._reduced(head.weight), bias)

    def generate(self, prompts: Sequence[str], **options: Any) -> list[str]:
        """Free text after each prompt; see :func:`lang_agent.generation.generate`."""
        from lang_agent.generation import generate

        return generate(self, prompts, **options)

    def values(self, states: States, layout: Layout) -> Tensor:
        """(D,) the value head's estimate of the return from each decision on."""
        at_decision = states.for_value[layout.decision_row, layout.decision_column]
        return self.value_head(at_decision).squeeze(-1)
