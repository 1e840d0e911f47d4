"""A model card: what a hub shows of a model, made from its stored evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from lang_agent.errors import LangAgentError
from lang_agent.evaluation.records import Results
from lang_agent.evaluation.summary import ALL, COLUMNS, Evaluation, cells, summarise_all

CARD_FILE = "README.md"


def model_card(
    name: str,
    *,
    results: Results | None = None,
    training: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
) -> str:
    """A model card in Markdown, behind the YAML that a hub reads.

    Args:
        name: what the model is called.
        results: a whole evaluation of it.
        training: the configuration of its run, as plain data; where the run lay is left out.
        notes: sentences on what to mind when the files are used.

    Raises:
        LangAgentError: an evaluation with episodes that are not played.
    """
    rows = [] if results is None else _rows(results)
    front = ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["reinforcement-learning", "language-agent", "lang_agent"],
        eval_results=[found for row in rows if row.task != ALL for found in _as_results(row)],
    )
    parts = [f"---\n{front.to_yaml().strip()}\n---", f"# {name}", _use(name, notes)]
    if results is None:
        parts.append("## Results\n\nNo evaluation came with this export.")
    else:
        parts.append(_results(results, rows))
    if training is not None:
        told = {name: value for name, value in training.items() if name != "out"}
        written = yaml.safe_dump(told, sort_keys=False, allow_unicode=True).strip()
        parts.append(f"## Training\n\n```yaml\n{written}\n```")
    return "\n\n".join(parts) + "\n"


def _rows(results: Results) -> list[Evaluation]:
    if results.missing:
        raise LangAgentError(
            f"The evaluation '{results.folder}' lacks {len(results.missing)} of its episodes: "
            "the command that made it plays them, and then export."
        )
    return summarise_all(results.spec, results.records)


def _as_results(row: Evaluation) -> list[EvalResult]:
    """A row as the entries of a hub's model index."""
    told = f"{row.episodes} episodes, 95% interval {row.success_low:.3f} to {row.success_high:.3f}"
    values = (
        ("success", f"success ({told})", row.success),
        ("return", "mean undiscounted return", row.mean_return),
    )
    return [
        EvalResult(
            task_type="reinforcement-learning",
            task_name="Reinforcement learning",
            dataset_type=row.task,
            dataset_name=row.task,
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for kind, name, value in values
    ]


def _use(name: str, notes: tuple[str, ...]) -> str:
    lines = [
        "A language model that acts in text environments: it reads a prompt and says a phrase. It "
        "was made with lang_agent and is a plain model of transformers.",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "```",
        "",
        "```",
        "lang-agent play --agent FOLDER",
        "lang-agent evaluate ENVIRONMENT --agent FOLDER",
        "```",
    ]
    return "\n".join([*lines, *(f"\n{note}" for note in notes)])


def _results(results: Results, rows: list[Evaluation]) -> str:
    spec = results.spec
    names = ["task", *(name for name, _ in COLUMNS)]
    table = [names, ["---"] * len(names), *([row.task, *cells(row)] for row in rows)]
    lines = ["| " + " | ".join(line) + " |" for line in table]
    seeds = f"{spec.first_seed} to {spec.first_seed + spec.episodes - 1}"
    versions = ", ".join(f"{library} {version}" for library, version in spec.versions.items())
    return "\n".join(
        [
            "## Results",
            "",
            *lines,
            "",
            f"Panel {spec.panel}: {spec.episodes} episodes of each task, on the seeds {seeds}. The "
            "intervals are Wilson's, at 95 %. The policy's weights are "
            f"{spec.agent.get('weights', '')}; it ran with {versions}.",
            "",
            "```",
            command(results),
            "```",
            "",
            "It read these words and decided so:",
            "",
            "```yaml",
            yaml.safe_dump(
                {name: spec.agent[name] for name in ("words", "decide") if name in spec.agent},
                sort_keys=False,
                allow_unicode=True,
            ).strip(),
            "```",
        ]
    )


def command(results: Results) -> str:
    """The command that plays an evaluation anew."""
    spec = results.spec
    tasks = [" ".join([task.env, *task.env_args]) for task in spec.tasks]
    asked = ["--suite", spec.suite] if spec.suite else tasks
    decide = spec.agent.get("decide") or {}
    said = [
        word
        for name in ("decide", "temperature")
        if name in decide
        for word in (f"--{name}", f"{decide[name]}")
    ]
    given = ["--agent", "FOLDER", *said, "--episodes", str(spec.episodes)]
    return shlex.join(["lang-agent", "evaluate", *asked, *given, "--seed", str(spec.first_seed)])
