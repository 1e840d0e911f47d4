"""``lang-agent train --grid --seeds --address``: runs of one kind, side by side on a Ray cluster.

Ray Tune has every run trained by some node, with as many cores as it has workers; one whose worker
dies goes on from its last checkpoint.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang_agent.bridges.ray_cluster import (
    ask,
    at_home,
    open_channel,
    refuse_too_many,
    room_for,
)
from lang_agent.cli.console import complain, say
from lang_agent.cli.guard import guarded
from lang_agent.cli.ray_training import follow, speaking, stopped_by
from lang_agent.cli.training import begin, carry_out
from lang_agent.config import load_config
from lang_agent.errors import LangAgentError
from lang_agent.evaluation.records import versions
from lang_agent.models.store import CONFIG_FILE
from lang_agent.ray_connection import connected
from lang_agent.train.config import TrainConfig

if TYPE_CHECKING:
    from lang_agent.cli.seeds import Planned

DONE, STOPPED = "done", "stopped"
"""What a run says that did not fail."""


def train_on_ray(
    runs: Sequence[Planned], address: str, folder: Path, *, trust: bool
) -> list[Planned]:
    """Train the runs on the Ray cluster at ``address``; returns those that failed.

    Raises:
        KeyboardInterrupt: they were stopped, each saved.
    """
    with connected(address):
        from lang_agent.bridges.ray_tune import call_each

        config = runs[0].config
        each = config.workers if isinstance(config.workers, int) else 1
        cpus = each * (config.threads or 1)
        gpus = int(config.device != "cpu" and bool(room_for(cpus, 1)))
        refuse_too_many(1, address, cpus, gpus)
        say(f"{len(runs)} runs on the Ray cluster at {address}, in {folder}")
        channel = open_channel()
        about = {
            "channel": channel,
            "folder": os.getcwd(),
            "path": list(sys.path),
            "names": {str(run.file): run.name for run in runs},
            "known": [str(run.file) for run in runs if (run.folder / CONFIG_FILE).is_file()],
            "versions": versions(),
            "trust": trust,
        }
        ends: dict[str, str] = {}

        def run_all() -> None:
            values = [str(run.file) for run in runs]
            ends.update(call_each(train_one, values, about, cpus=cpus, gpus=gpus))
            ask(channel.finish.remote(STOPPED if STOPPED in ends.values() else DONE))

        follow(run_all, channel, lambda: "" if room_for(cpus, gpus) else "a run")
    failed = [run for run in runs if ends[str(run.file)] != DONE]
    for run in failed:
        complain(f"{run.name}: {ends[str(run.file)]}")
    return failed


def train_one(file: str, about: dict[str, Any]) -> str:
    """Train the run of a configuration on this node, or go on with it after a worker's death;
    returns how it ended."""
    channel = about["channel"]
    if ask(channel.is_to_stop.remote()):
        return STOPPED
    try:
        with (
            at_home(about["folder"], about["path"]),
            speaking(channel, f"{about['names'][file]}: "),
        ):
            if versions() != about["versions"]:
                raise LangAgentError(
                    f"The node {os.uname().nodename} has other versions than the command's: "
                    f"{versions()}, not {about['versions']}."
                )
            config = load_config(Path(file), TrainConfig, trust=True)
            folder = Path(str(config.out))
            again = file not in about["known"] and (folder / CONFIG_FILE).is_file()

            def train() -> None:
                run = begin(config, folder if again else None, trust=about["trust"])
                carry_out(run, lambda run: stopped_by(channel, run))

            guarded(train)
    except KeyboardInterrupt:
        return STOPPED
    except LangAgentError as error:
        return str(error)
    return DONE
