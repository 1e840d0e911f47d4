"""Where a run's curves and texts go beside its ``metrics.jsonl``: TensorBoard's files, trackio,
Weights & Biases, or what somebody has made.

A tracker is what a callable returns that is given the configuration, as plain data, and the run's
folder; it has the four methods of :class:`Tracker`.
"""

from __future__ import annotations

import html
import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from lang_agent.config import as_data
from lang_agent.errors import LangAgentError
from lang_agent.files import tell, write_whole
from lang_agent.train.config import TrainConfig
from lang_agent.trust import load_function, names_from

PROJECT = "lang_agent"
ID_FILE = "tracking.json"
TIMES = ("seconds", "steps_per_second", "acting_fraction", "updates", "episodes")
OF_EPISODES = (
    "success", "return", "episode_length", "invalid_rate", "env_errors", "unjudged",
    "expert_share", "policy_success",
)  # fmt: skip
"""Metrics of the episodes that were played; what is in no list here is of learning."""
OWN_GROUPS = {"success": "part/success", "weight": "part/weight", "reward_std": "reward/std",
              "reward_seconds": "time/reward", "reward": "reward", "metric": "metric",
              "evaluation": "evaluation"}  # fmt: skip


class Tracker(Protocol):
    """What is told how a run goes."""

    def start(self, step: int) -> None:
        """The run begins, or goes on after ``step`` environment steps: what was told of later ones,
        before a kill, is void and will be told again."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Figures as of ``step``, each called ``group/name``."""

    def text(self, name: str, text: str, step: int) -> None:
        """Something to read."""

    def close(self) -> None:
        """Nothing more comes, until the run is resumed."""


def grouped(name: str) -> str:
    """A metric's name as trackers get it: its group, and itself."""
    head, slash, rest = name.partition("/")
    if slash:
        return f"{OWN_GROUPS.get(head, f'learn/{head}')}/{rest}"
    if name in OF_EPISODES:
        return f"rollout/{name}"
    return f"time/{name}" if name in TIMES else f"learn/{name}"


class TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self.folder = folder

    def start(self, step: int) -> None:
        # Readers take these files in the order of their names, which tell the second.
        while list(self.folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
            time.sleep(0.05)
        # The step given and all above it are void.
        self._board = SummaryWriter(str(self.folder), purge_step=step + 1)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def text(self, name: str, text: str, step: int) -> None:
        self._board.add_text(name, f"<pre>{html.escape(text)}</pre>", step)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class Wandb:
    """Weights & Biases, offline unless the variable ``WANDB_MODE`` says otherwise."""

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _absent("wandb", error) from None
        self.wandb: Any = wandb
        self.config, self.folder = config, folder

    def start(self, step: int) -> None:
        name = run_id(self.folder)
        self._run = self.wandb.init(
            project=PROJECT,
            id=name,
            name=name,
            dir=str(self.folder),
            config=dict(self.config),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
        )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def text(self, name: str, text: str, step: int) -> None:
        self._run.log({name: self.wandb.Html(f"<pre>{html.escape(text)}</pre>")}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """trackio, which keeps its figures on this machine (``trackio show`` shows them)."""

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        try:
            import trackio
        except ImportError as error:
            raise _absent("trackio", error) from None
        self.trackio: Any = trackio
        self.config, self.folder = config, folder

    def start(self, step: int) -> None:
        name, config = run_id(self.folder), dict(self.config)
        self._run = self.trackio.init(
            project=PROJECT,
            name=name,
            config=config,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def text(self, name: str, text: str, step: int) -> None:
        fence = "`" * 8  # longer than any in a prompt
        self._run.log({name: self.trackio.Markdown(f"{fence}\n{text}\n{fence}")}, step=step)

    def close(self) -> None:
        self.trackio.finish()


TRACKERS = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": Wandb}


def make_trackers(config: TrainConfig, folder: Path) -> list[Tracker]:
    """The trackers of a run, not started yet.

    Raises :class:`LangAgentError` for one that is not installed, and for a ``module:name`` that may
    not be imported.
    """
    made = []
    for name in config.track:
        if name == "none":
            continue
        make: Any = TRACKERS.get(name)
        if make is None:
            with names_from(config.text.source):
                make = load_function(name)
        tracker = make(as_data(config), folder)
        for method in ("start", "scalars", "text", "close"):
            if not callable(getattr(tracker, method, None)):
                raise LangAgentError(
                    f"track={name} makes a {type(tracker).__name__}, which has no {method}()."
                )
        made.append(tracker)
    return made


def run_id(folder: Path) -> str:
    """What a run is called where runs of many folders are kept; a resumed run keeps it."""
    file = folder / ID_FILE
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["id"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        tell(f"'{file}' cannot be read: the run gets a new curve.")
    made = f"{folder.resolve().name}-{uuid.uuid4().hex[:8]}"
    write_whole(file, json.dumps({"id": made}) + "\n")
    return made


def _absent(name: str, error: ImportError) -> LangAgentError:
    return LangAgentError(f"track={name} needs its package ({error}): pip install {name}.")
