"""Demonstrations as a dataset of Hugging Face's ``datasets`` on disk, and back; extra ``datasets``.

A row is a step: ``env``, ``seed``, ``success``, ``return``, ``episode`` and ``step`` (both from 0),
``prompt``, ``actions``, ``action``, ``wanted`` (empty where nothing is to be learned) and
``reward``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError
from lang_agent.files import whole
from lang_agent.learn.demonstrations import as_data, from_data


def write_dataset(folder: Path, episodes: Iterable[tuple[str, Episode]]) -> int:
    """Write (environment's id, episode) as a dataset; returns how many episodes.

    Raises :class:`LangAgentError` without the extra, or for a folder that is there already.
    """
    datasets = library()
    if folder.exists():
        raise LangAgentError(f"'{folder}' is there already: choose another.")
    rows: list[dict[str, Any]] = []
    count = 0
    for number, (env_id, episode) in enumerate(episodes):
        data = as_data(env_id, episode)
        about = {name: data[name] for name in ("env", "seed", "success", "return")}
        for at, step in enumerate(data["steps"]):
            actions = list(step["actions"] or ())
            wanted = step["wanted"] or ""
            own = {**step, "actions": actions, "wanted": wanted}
            rows.append({**about, "episode": number, "step": at, **own})
        count += 1
    if not rows:
        raise LangAgentError("There are no steps to write.")
    with whole(folder) as beside:
        datasets.Dataset.from_list(rows).save_to_disk(str(beside))
    return count


def read_dataset(folder: Path) -> list[tuple[str, Episode]]:
    """(environment's id, episode) of a dataset that :func:`write_dataset` wrote.

    Raises :class:`LangAgentError` without the extra, and for a folder that holds something else.
    """
    datasets = library()
    try:
        rows = datasets.load_from_disk(str(folder)).to_list()
        found = []
        for number, steps in groupby(rows, key=lambda row: row["episode"]):
            found.append(_episode(number, list(steps)))
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise LangAgentError(f"'{folder}' is no dataset of demonstrations: {reason}.") from None


def _episode(number: int, steps: list[Mapping[str, Any]]) -> tuple[str, Episode]:
    first = steps[0]
    own = [
        {**step, "actions": step["actions"] or None, "wanted": step["wanted"] or None}
        for step in steps
    ]
    return str(first["env"]), from_data({**first, "steps": own}, number)


def library() -> Any:
    """The package ``datasets``; raises :class:`LangAgentError` without the extra."""
    try:
        import datasets
    except ImportError:
        raise LangAgentError(
            "Datasets need an extra: pip install 'lang_agent[datasets]'."
        ) from None
    datasets.disable_progress_bars()
    return datasets
