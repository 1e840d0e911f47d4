"""The program of a worker that another process starts (:mod:`lang_agent.train.workers`)."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from lang_agent.config import from_dict
from lang_agent.errors import LangAgentError
from lang_agent.learn.workers import Workers
from lang_agent.processes import end_with
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import Trainer
from lang_agent.train.workers import HOST, meet


def standing_at(about: Mapping[str, Any]) -> Trainer:
    """The run as it stands where another process has it (:func:`as_it_stands`)."""
    return Trainer(
        from_dict(TrainConfig, about["config"], "the run"),
        Path(about["folder"]),
        checkpoint=Path(about["checkpoint"]),
        trust=about["trust"],
    )


def main() -> None:
    """Follow the worker that says on standard input what is to be trained."""
    about: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    for number in (signal.SIGINT, signal.SIGTERM):  # the first worker is told, and ends us
        signal.signal(number, signal.SIG_IGN)
    end_with(about["parent"])
    rank, size = about["rank"], about["size"]
    try:
        run = standing_at(about)
        meet(dist.TCPStore(HOST, about["port"], size), rank, size, run.device)
        run.join(Workers(rank, size, run.config.shard))
        run.follow()
    except LangAgentError as error:
        print(f"lang-agent: worker {rank + 1} of {size}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
