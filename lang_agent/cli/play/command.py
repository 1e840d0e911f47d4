"""The command ``lang-agent play``: a film, the plain form, or the screen."""

from __future__ import annotations

import codecs
import os
import sys
from functools import partial
from pathlib import Path

from lang_agent.agents.human import HumanAgent
from lang_agent.cli.console import say
from lang_agent.cli.options import Play, agent_of
from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError
from lang_agent.files import try_place

SAVED = "played.jsonl"
"""Where the key s writes, unless --record says."""


def draws_screens() -> bool:
    """Whether there is a terminal that a screen can be drawn on."""
    if os.environ.get("TERM", "dumb") in ("", "dumb", "unknown") and os.name != "nt":
        return False
    knows_letters = codecs.lookup(sys.stdout.encoding or "ascii").name != "ascii"
    return sys.stdin.isatty() and sys.stdout.isatty() and knows_letters


def play(args: Play) -> None:
    """Play or film episodes as the options say."""
    if args.film:
        _film(args, args.film)
        return
    if args.agent == "human" and args.examples:
        raise LangAgentError("--examples stand before an agent's prompts: a person needs none.")
    agent = agent_of(args, args.agent, 1)
    env, seeds = args.text.make(args.env), range(args.seed, args.seed + args.episodes)
    if args.record:
        from lang_agent.learn.demonstrations import refuse_evaluation_seeds

        refuse_evaluation_seeds(seeds)
        try_place(Path(args.record))

    def save(episode: Episode) -> Path:
        from lang_agent.learn.demonstrations import write_demonstrations
        from lang_agent.train.demonstrate import label_own

        file = Path(args.record or SAVED)
        write_demonstrations(file, args.env, [label_own(episode)])
        return file

    if args.plain or not draws_screens():
        from lang_agent.cli.play.plain import play_plainly

        for episode in play_plainly(env, agent, seeds, strict=args.strict):
            if args.record:
                save(episode)
        return

    from lang_agent.cli.play.app import PlayApp, run_app

    app = PlayApp(
        env,
        None if isinstance(agent, HumanAgent) else agent,
        args.seed,
        strict=args.strict,
        episodes=args.episodes,
        save=save,
        record=bool(args.record),
    )
    run_app(app)


def _film(args: Play, file: str) -> None:
    from lang_agent.evaluation.film import FPS, check_film, drawing, film

    check_film(Path(file))
    env = drawing(partial(args.text.make, args.env))
    seeds = range(args.seed, args.seed + args.episodes)
    agent = agent_of(args, args.agent, 1)
    for episode in film(agent, env, seeds, Path(file), args.fps or FPS):
        say(f"seed {episode.seed}: {len(episode.steps)} steps, success {episode.success}")
    say((file, "bold"))
