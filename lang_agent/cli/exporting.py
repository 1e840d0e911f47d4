"""The command ``lang-agent export``."""

from __future__ import annotations

from pathlib import Path

from lang_agent.bridges.onnx_export import require_onnx, write_onnx
from lang_agent.cli.console import as_text, say
from lang_agent.cli.options import EXPORT_FORMATS, Export
from lang_agent.config import as_data, load_config, save_config
from lang_agent.errors import LangAgentError, unknown
from lang_agent.evaluation.card import CARD_FILE, model_card
from lang_agent.evaluation.records import Results, read_results
from lang_agent.files import CARRIED
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sealed import write_sealed
from lang_agent.models.store import CONFIG_FILE, config_beside, digest, load_policy
from lang_agent.models.tokenizer import knowledge_of
from lang_agent.text_env.prompt import carry
from lang_agent.train.config import TrainConfig


def export(args: Export) -> None:
    """Write a policy as a plain model of transformers, with a model card."""
    source, folder = as_text(args.run), Path(as_text(args.out))
    if args.format not in EXPORT_FORMATS:
        raise unknown("format", args.format, EXPORT_FORMATS)
    if folder.exists() or folder.is_symlink():
        raise LangAgentError(f"'{folder}' is there already: choose another folder.")
    if args.format == "onnx":
        require_onnx()
    file = config_beside(source)
    config = None if file is None else load_config(file, TrainConfig)
    policy = load_policy(source, trust=args.trust)
    results = None if args.evaluation is None else read_results(as_text(args.evaluation))
    if results is not None:
        _refuse_other(results, policy)
    card = model_card(
        folder.name,
        results=results,
        training=None if config is None else as_data(config),
        notes=_notes(policy, args),
    )

    def write(beside: Path) -> None:
        policy.save_pretrained(beside, half=args.half)
        if config is not None and file is not None:
            words = config.text.carried(file)
            save_config(config, beside / CONFIG_FILE)
            carry(words.prompt, words.prompt_folder, beside / CARRIED)
        if args.format == "onnx":
            write_onnx(beside, trust=args.trust)
        (beside / CARD_FILE).write_text(card, encoding="utf-8")

    write_sealed(folder, write)
    size = sum(file.stat().st_size for file in folder.iterdir())
    say(f"{folder}: {size / 2**20:.1f} MiB")


def _refuse_other(results: Results, policy: LanguagePolicy) -> None:
    """Raise :class:`LangAgentError` for an evaluation of other weights."""
    told, own = results.spec.agent.get("weights"), digest(policy)
    if told != own:
        raise LangAgentError(
            f"The evaluation '{results.folder}' is of {results.name} with the weights {told}, and "
            f"the policy has the weights {own}: evaluate this one."
        )


def _notes(policy: LanguagePolicy, args: Export) -> tuple[str, ...]:
    notes = []
    if knowledge_of(policy.tokenizer):
        notes.append(
            "A name that the tokenizer does not know is one of 1024 tokens for lang_agent, by the "
            "name's hash; the tokenizer alone spells it in bytes, which the model never learned."
        )
    if args.half:
        notes.append(
            "The weights are rounded to 16 bits; results are of the weights before that, of 32."
        )
    if args.format == "onnx":
        notes.append(
            "`model.onnx` takes `input_ids` and `attention_mask` and gives `logits`, without a "
            "cache of keys and values."
        )
    return tuple(notes)
