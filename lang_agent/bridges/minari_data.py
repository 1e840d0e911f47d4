"""Demonstrations as a dataset of Minari, and back; extra ``minari``.

Prompts are the observations (the last one, after the end, is empty), phrases the actions. ``infos``
holds the ``admissible`` phrases of every step as JSON and the one ``wanted``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from gymnasium.spaces import Text

from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError
from lang_agent.learn.demonstrations import as_data, from_data


def write_minari(dataset_id: str, episodes: Iterable[tuple[str, Episode]]) -> int:
    """Write (environment's id, episode) as the Minari dataset ``dataset_id`` (``name-v0``); returns
    how many episodes.

    Raises :class:`LangAgentError` without the extra, and for what Minari refuses.
    """
    minari = _library()
    from minari.data_collector.episode_buffer import EpisodeBuffer

    found = [as_data(env_id, episode) for env_id, episode in episodes]
    if not found:
        raise LangAgentError("There are no episodes to write.")
    buffers = []
    for number, data in enumerate(found):
        steps = data["steps"]
        last = [at == len(steps) - 1 for at in range(len(steps))]
        buffers.append(
            EpisodeBuffer(
                id=number,
                seed=data["seed"],
                options={"env": data["env"], "success": data["success"]},
                observations=[*(step["prompt"] for step in steps), ""],
                actions=[step["action"] for step in steps],
                rewards=[step["reward"] for step in steps],
                terminations=last,
                truncations=[False] * len(steps),
                infos={
                    "admissible": [*(json.dumps(step["actions"]) for step in steps), ""],
                    "wanted": [*(step["wanted"] or "" for step in steps), ""],
                },
            )
        )
    prompts = [text for buffer in buffers for text in buffer.observations or ()]
    actions = [text for buffer in buffers for text in buffer.actions or ()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no environment's spec, and no author
            minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                observation_space=_space(prompts),
                action_space=_space(actions),
                description=f"Demonstrations in words: {', '.join({d['env'] for d in found})}.",
            )
    except (ValueError, TypeError, AssertionError, OSError) as error:
        raise LangAgentError(f"Minari refuses {dataset_id!r}: {error}") from None
    return len(found)


def _space(texts: Sequence[str]) -> Text:
    letters = "".join(sorted({letter for text in texts for letter in text})) or " "
    return Text(max(map(len, texts)) or 1, min_length=0, charset=letters)


def read_minari(dataset_id: str) -> list[tuple[str, Episode]]:
    """(environment's id, episode) of a Minari dataset in words.

    One that :func:`write_minari` did not write has no admissible phrases, so that nothing of it can
    be learned by imitation; its environment is called by the dataset's name. Raises
    :class:`LangAgentError` without the extra, and for a dataset of anything but texts.
    """
    minari = _library()
    try:
        dataset = minari.load_dataset(dataset_id)
    except (ValueError, OSError, KeyError) as error:
        raise LangAgentError(f"Minari has no dataset {dataset_id!r} here: {error}") from None
    if not isinstance(dataset.observation_space, Text):
        raise LangAgentError(f"The dataset {dataset_id!r} is of no texts.")
    found: list[tuple[str, Episode]] = []
    for episode in dataset.iterate_episodes():
        infos = episode.infos or {}
        about = _about(dataset, int(episode.id))
        seed = about.get("seed", 0)
        env_id = str((about.get("options") or {}).get("env", dataset_id))
        steps = []
        for at, action in enumerate(episode.actions):
            phrases = _text(infos["admissible"][at]) if "admissible" in infos else ""
            steps.append(
                {
                    "prompt": str(episode.observations[at]),
                    "actions": json.loads(phrases) if phrases else None,
                    "action": str(action),
                    "wanted": (_text(infos["wanted"][at]) if "wanted" in infos else "") or None,
                    "reward": float(episode.rewards[at]),
                }
            )
        success = (about.get("options") or {}).get("success", float(sum(episode.rewards)) > 0)
        data = {"seed": int(seed or 0), "success": bool(success), "steps": steps}
        found.append((env_id, from_data(data, len(found))))
    return found


def _about(dataset: Any, number: int) -> dict[str, Any]:
    """What Minari keeps of an episode beside its steps."""
    (metadata,) = dataset.storage.get_episode_metadata([number])
    about = dict(metadata)
    options = about.get("options")
    about["options"] = json.loads(_text(options)) if isinstance(options, str | bytes) else options
    return about


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _library() -> Any:
    try:
        import minari
    except ImportError:
        raise LangAgentError("Minari needs an extra: pip install 'lang_agent[minari]'.") from None
    return minari
