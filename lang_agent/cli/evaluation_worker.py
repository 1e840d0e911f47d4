"""The program of a worker of an evaluation (:mod:`lang_agent.cli.evaluation_workers`)."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from lang_agent.cli.evaluation import prepare
from lang_agent.cli.options import Evaluate
from lang_agent.config import from_dict
from lang_agent.errors import LangAgentError, SpentError
from lang_agent.evaluation.records import Record, as_line
from lang_agent.processes import end_with


def main() -> None:
    """Play the seeds of the tasks that standard input names, and say every episode as it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who began us hears it, and ends us
    said = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a world that prints does not speak for us

    def say(**message: Any) -> None:
        said.write(json.dumps(message) + "\n")
        said.flush()

    def take(record: Record, trajectory: dict[str, Any] | None) -> None:
        say(record=json.loads(as_line(record)), trajectory=trajectory)

    about = json.loads(sys.stdin.readline())
    end_with(about["parent"])
    try:
        asked = prepare(from_dict(Evaluate, about["args"], "the evaluation"), about["slots"])
        tasks = {task.name: task for task in asked.suite.tasks}
        for line in sys.stdin:
            wanted, reason, spent = json.loads(line), "", ""
            try:
                reason = asked.player(tasks[wanted["task"]], wanted["seeds"], take)
            except SpentError as error:
                spent = str(error)
            say(reason=reason, spent=spent)
    except LangAgentError as error:
        print(f"lang-agent: a worker: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
