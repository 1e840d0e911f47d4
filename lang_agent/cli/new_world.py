"""The command ``lang-agent new-world``."""

from __future__ import annotations

import keyword
import textwrap
from importlib.resources import files
from pathlib import Path
from string import Template

import gymnasium

from lang_agent.cli.console import as_text, say
from lang_agent.cli.options import NewWorld
from lang_agent.errors import LangAgentError, shown
from lang_agent.files import write_whole


def new_world(args: NewWorld) -> None:
    """Write a world to begin with, and its test, into the current folder."""
    name = as_text(args.name)
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise LangAgentError(
            f"{shown(name)} cannot name a Python file that is imported: use small letters, digits "
            "and underscores, as in my_lake."
        )
    title = "".join(part.capitalize() for part in name.split("_"))
    values = {"module": name, "title": title, "id": f"{title}-v0"}
    begin = "world.txt"
    if args.wraps:
        begin, values = "wrapped.txt", {**values, **_wrapped(as_text(args.wraps))}
    places = {begin: Path(f"{name}.py"), "test.txt": Path(f"test_{name}.py")}
    for place in places.values():
        if place.exists() or place.is_symlink():
            raise LangAgentError(f"'{place}' is there already: choose another name.")
    for template, place in places.items():
        text = (files("lang_agent.cli") / "starter" / template).read_text(encoding="utf-8")
        write_whole(place, Template(text).substitute(values))
        say((str(place), "bold"))
    say(f"Try it: lang-agent play {name}:{title}-v0, then lang-agent check {name}:{title}-v0")


def _wrapped(env_id: str) -> dict[str, str]:
    """What the starter of a world around one of Gymnasium's environments must know of it."""
    try:
        env = gymnasium.make(env_id)
    except gymnasium.error.Error as error:
        how = ""
        if ":" not in env_id:
            how = " A package's id has its module before it, as in its_module:TheirEnv-v0."
        raise LangAgentError(f"Gymnasium cannot make {shown(env_id)}: {error}{how}") from None
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise LangAgentError(
            f"{env_id} takes actions of {space}, and phrases stand for one action each: wrap it "
            "so that its actions are numbers from 0 on."
        )
    _, info = env.reset(seed=0)
    env.close()
    numbers = range(int(space.start), int(space.start + space.n))
    lines = '[f"The state is {observation}"]'
    if isinstance(env.observation_space, gymnasium.spaces.Dict):
        lines = '[f"{name} is {value}" for name, value in observation.items()]'
    mask = " Its action_mask says which phrases are admissible." if "action_mask" in info else ""
    limited = env.spec is not None and env.spec.max_episode_steps
    return {
        "env": env_id,
        "space": _comment(f"An observation is of {env.observation_space}."),
        "info": _comment(f"Beside it, `info` has {', '.join(info) or 'nothing'}.{mask}"),
        "actions": "\n".join(f'    "action {number}": {number},' for number in numbers),
        "lines": lines,
        "limit": "" if limited else ", max_episode_steps=1000",
    }


def _comment(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 98, initial_indent="# ", subsequent_indent="# ")
