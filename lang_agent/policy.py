"""The policy: a causal language model that says which admissible phrase comes next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from lang_agent.cache import RaggedCache
from lang_agent.errors import LangAgentError, unknown
from lang_agent.prompt import PromptError
from lang_agent.scoring import ActionTree, Forest, Layout, build_tree, lay_out, plant, score_phrases


@dataclass(frozen=True)
class Size:
    """The shape of a GPT-2 made from scratch."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int


SIZES = {
    "nano": Size(layers=4, width=128, heads=4, vocabulary=1024, context=1024),
    "micro": Size(layers=6, width=256, heads=8, vocabulary=2048, context=1024),
    "small": Size(layers=8, width=512, heads=8, vocabulary=4096, context=1024),
}
_LINES = re.compile(r"(?<=\S)(?=\n\S)")
FINAL_GAIN = 0.2  # of a new model's last norm: its first policy then has near-maximal entropy
VALUE_FILE = "value_head.safetensors"


class LanguagePolicy(nn.Module):
    """A causal language model as a policy over phrases, with a value head.

    ``model`` and ``tokenizer`` are the transformers objects. The value of a state is read from the
    last hidden state of its prompt's last token.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.value_head = nn.Linear(model.config.hidden_size, 1, device=model.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or 1024)
        self._memory = lru_cache(maxsize=65536)(self._encode)
        self.tree = lru_cache(maxsize=4096)(self._tree)
        self._forest = lru_cache(maxsize=64)(self._plant)
        _check_head(self)

    @classmethod
    def from_pretrained(
        cls, path_or_id: str | Path, *, gguf_file: str | None = None, device: str | None = None
    ) -> LanguagePolicy:
        """Load a causal language model of transformers from a directory or the hub.

        A directory written by :meth:`save_pretrained` brings its value head; any other model gets
        a new one. Dropout is off, so that the policy acted with is the policy learned.
        Raises :class:`LangAgentError` when nothing whole can be loaded from there.
        """
        where = str(path_or_id)
        if where.startswith((".", "/")) and not Path(where).is_dir():
            raise LangAgentError(f"There is no model directory '{where}'.")
        files: dict[str, Any] = {} if gguf_file is None else {"gguf_file": gguf_file}
        try:
            with _no_progress_bars():
                tokenizer = AutoTokenizer.from_pretrained(where, **files)
                model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **files)
        except Exception as error:
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise LangAgentError(f"Cannot load a language model from '{where}': {reason}") from None
        _without_dropout(model)
        policy = cls(model, tokenizer)
        value_file = Path(where) / VALUE_FILE
        if value_file.is_file():
            policy.value_head.load_state_dict(load_file(value_file))
        return policy.to(device or "cpu").eval()

    @classmethod
    def from_scratch(
        cls, size: str = "nano", *, seed: int, texts: Iterable[str] | None = None
    ) -> LanguagePolicy:
        """A GPT-2 with random weights and a tokenizer of its own.

        Args:
            size: one of ``SIZES``.
            seed: of the weights; the same seed and texts give the same policy.
            texts: what the tokenizer is trained on, such as prompts of your environment; by
                default prompts of random play in BabyAI's MixedLocal.

        Three things differ from GPT-2's own start, which is made for a width of 768 and more and
        for billions of tokens: weights are drawn at 1/sqrt(width); the last norm's gain is small,
        so that the first policy is nearly uniform; and position embeddings are sinusoids
        (Vaswani et al. 2017, sec. 3.5), so that what is learned at one offset serves at others.
        """
        from lang_agent.tokenizer import default_texts, train_tokenizer

        if size not in SIZES:
            raise unknown("model size", size, SIZES)
        shape = SIZES[size]
        tokenizer = train_tokenizer(default_texts() if texts is None else texts, shape.vocabulary)
        end = tokenizer.eos_token_id
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=shape.context,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            activation_function="gelu_pytorch_tanh",  # gelu_new, computed in one operation
            initializer_range=shape.width**-0.5,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=end,
            eos_token_id=end,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = GPT2LMHeadModel(config)
            _sinusoids_(model.transformer.wpe.weight.data, scale=config.initializer_range)
            nn.init.constant_(model.transformer.ln_f.weight, FINAL_GAIN)
            policy = cls(model, tokenizer)
        return policy.eval()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the model, tokenizer and value head; plain transformers can load the first two."""
        directory = Path(directory)
        with _no_progress_bars():
            self.model.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)
        save_file(self.value_head.state_dict(), directory / VALUE_FILE)

    # -- words ---------------------------------------------------------------------------------

    def _encode(self, line: str) -> list[int]:
        return self.tokenizer.encode(line, add_special_tokens=False)

    def encode(self, text: str) -> list[int]:
        """Token ids, line by line through a memory: the lines of a world repeat.

        In a byte-level BPE vocabulary (GPT-2's and ours among them) a newline between two visible
        characters starts a new piece, so that the lines' tokens are the text's tokens, and a
        prompt that grows by whole lines keeps the tokens it has.
        """
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

    def _tree(self, actions: tuple[str, ...]) -> ActionTree:
        if not actions:
            raise LangAgentError("There is no admissible action to score: the list is empty.")
        return build_tree([self.encode_action(action) for action in actions])

    def _plant(self, trees: tuple[ActionTree, ...]) -> Forest:
        return plant(trees, self.device)

    def prompt_budget(self, actions: Sequence[str]) -> int:
        """The most tokens a prompt may have so that any of the phrases still fits behind it."""
        return self.context - max(len(self.encode_action(action)) for action in actions)

    # -- scores --------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.value_head.weight.device

    def hidden_states(
        self, layout: Layout, cache: RaggedCache | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """(B, W, H) last hidden states of a layout's tokens.

        With a ``cache``, the tokens follow the keys of its ``rows`` (B,) and are added to them.
        """
        mask = None  # plain causal attention: padding is on the right and nobody looks at it
        if cache is not None and rows is not None:
            mask = layout.mask(cache.aim(rows, layout.slot))
        elif layout.has_nodes:
            mask = layout.mask(layout.token_ids.shape[1])
        output = self.model.base_model(
            input_ids=layout.token_ids,
            position_ids=layout.position,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state

    def action_log_probs(self, prompts: Sequence[str], actions: Sequence[Any]) -> Tensor:
        """The log-policy over each prompt's admissible phrases.

        Args:
            prompts: B prompts.
            actions: the phrases: one list for all prompts, or B lists.

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
        trees = [self.tree(tuple(names)) for names in per_prompt]
        for row, names in zip(rows, per_prompt, strict=True):
            self.check_fits(len(row), names)
        ends = [[len(row) - 1] for row in rows]
        layout = lay_out(rows, [0] * len(rows), ends, [[tree] for tree in trees], self.device)
        return self.log_policy(self.hidden_states(layout), layout, trees)

    def log_policy(self, hidden: Tensor, layout: Layout, trees: Sequence[ActionTree]) -> Tensor:
        """(D, A) log-probabilities over the phrases of D decisions; ``trees`` has one for each."""
        distinct = tuple(dict.fromkeys(trees))
        index = {tree: at for at, tree in enumerate(distinct)}
        which = torch.tensor([index[tree] for tree in trees], device=self.device)
        head = self.model.get_output_embeddings()
        return score_phrases(
            hidden, layout, self._forest(distinct), which, head.weight, getattr(head, "bias", None)
        )

    def values(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(D,) the value head's estimate of the return from each decision on."""
        at_decision = hidden[layout.decision_row, layout.decision_column]
        return self.value_head(at_decision).squeeze(-1).float()

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 32,
        temperature: float = 1.0,
        stop: str | None = "\n",
        generator: torch.Generator | None = None,
    ) -> list[str]:
        """Free text after each prompt, a token at a time.

        Args:
            prompts: B prompts.
            max_new_tokens: the most to write; the context may set a lower limit.
            temperature: of the draws; 0 takes the most likely token.
            stop: a text ends before this string, or at the end-of-text token.
            generator: of the draws; seeded with 0 unless given.
        """
        generator = generator or torch.Generator().manual_seed(0)
        cache = RaggedCache(len(prompts))
        feeds = [self.encode_prompt(prompt) for prompt in prompts]
        lengths = [0] * len(prompts)  # tokens in the cache
        written: list[list[int]] = [[] for _ in prompts]
        for feed in feeds:
            self.check_fits(len(feed), ("x",))
        active = list(range(len(prompts)))
        head = self.model.get_output_embeddings()
        for _ in range(max_new_tokens):
            rows = [feeds[at] for at in active]
            starts = [lengths[at] for at in active]
            ends = [[len(row) - 1] for row in rows]
            layout = lay_out(rows, starts, ends, [[build_tree([])]] * len(rows), self.device)
            hidden = self.hidden_states(layout, cache, torch.tensor(active, device=self.device))
            logits = head(hidden[layout.decision_row, layout.decision_column]).float().cpu()
            tokens = sample(logits.log_softmax(-1), temperature, generator).tolist()
            for at, token in zip(active, tokens, strict=True):
                lengths[at] += len(feeds[at])
                feeds[at] = [token]
                written[at].append(token)
            active = [
                at
                for at in active
                if written[at][-1] != self.tokenizer.eos_token_id
                and lengths[at] < self.context
                and not (stop and stop in str(self.tokenizer.decode(written[at])).lstrip())
            ]
            if not active:
                break
        texts = [
            str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in written
        ]
        return [text.split(stop)[0].rstrip() if stop else text for text in texts]

    def check_fits(self, prompt_tokens: int, actions: Sequence[str]) -> None:
        """Raise :class:`PromptError` unless a prompt and its longest phrase fit the context."""
        if prompt_tokens > self.prompt_budget(actions):
            raise PromptError(
                f"A prompt of {prompt_tokens} tokens and its actions exceed the model's context of "
                f"{self.context}: use a model with a longer context or a shorter template."
            )


def sample(log_probs: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """(B,) indices drawn from (B, A) log-probabilities; temperature 0 takes the most likely."""
    if temperature == 0:
        return log_probs.argmax(dim=1)
    weights = torch.softmax(log_probs / temperature, dim=1)
    return torch.multinomial(weights, 1, generator=generator).squeeze(1)


def _check_head(policy: LanguagePolicy) -> None:
    """Scores are read off the head's weights: refuse a model whose logits are not just those."""
    head = policy.model.get_output_embeddings()
    token_ids = torch.arange(2, device=policy.device)[None]
    with torch.no_grad():
        logits = policy.model(token_ids, use_cache=False).logits
        expected = head(policy.model.base_model(token_ids, use_cache=False).last_hidden_state)
    if not torch.allclose(logits, expected, rtol=1e-3, atol=1e-3):
        raise LangAgentError(
            f"{type(policy.model).__name__} changes its logits after its head (by a cap or a "
            "scale), which this policy does not follow: use a model without."
        )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """transformers draws a bar for every file that it reads or writes; checkpoints are many."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _without_dropout(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _sinusoids_(weight: Tensor, scale: float) -> None:
    """Fill (positions, width) with sines and cosines of ``scale`` root mean square."""
    positions, width = weight.shape
    rates = torch.exp(-torch.arange(0, width, 2) / width * torch.log(torch.tensor(10000.0)))
    angles = torch.arange(positions)[:, None] * rates
    weight[:, 0::2] = torch.sin(angles) * scale * 2**0.5
    weight[:, 1::2] = torch.cos(angles) * scale * 2**0.5
