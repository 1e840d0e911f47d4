"""How a world is put into words: the options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Annotated, Any, get_type_hints

import gymnasium
import tyro

from lang_agent.config import value_as
from lang_agent.errors import LangAgentError, shown
from lang_agent.files import CARRIED
from lang_agent.text_env.env import TEXT_OPTIONS
from lang_agent.text_env.prompt import digest
from lang_agent.text_env.registry import make
from lang_agent.trust import Source, names_from
from lang_agent.yaml_data import read_yaml


@dataclass(frozen=True)
class TextConfig:
    """How a world is put into words."""

    renderer: str | None = None
    """By name, or module:function; by default the world's first."""
    prompt: str = "transcript"
    """Template name, or a path to a .jinja file."""
    prompt_folder: str | None = None
    """Your templates, looked in before those that ship."""
    invalid_action: str = "noop"
    """noop, default:<phrase>, penalty:<x>, retry:<n> or end."""
    actions: tuple[str, ...] = ()
    """Only these of the world's phrases; all by default."""
    wording: str | None = None
    """Other words for each episode, by module:function (lang_agent.envs.wordings:varied) or a YAML
    file of them."""
    env_args: tuple[str, ...] = ()
    """For the world itself, as name=value: max_steps=64 task=goto. The options above can be given
    here too, so that each part of a mixture may have its own."""

    source: Annotated[Source | None, tyro.conf.Suppress, tyro.conf.Fixed] = field(
        default=None, repr=False, compare=False
    )
    """Where the names come from that are to be imported; None: from the person. No file sets it."""

    def carried(self, config_file: Path) -> TextConfig:
        """The same words, of the template that lies with the configuration, if one does."""
        folder = config_file.parent / CARRIED
        if not folder.is_dir():
            return self
        return replace(self, prompt=PurePath(self.prompt).stem, prompt_folder=str(folder))

    def with_args(self, env_args: Sequence[str]) -> TextConfig:
        """The same words, and further arguments for the world."""
        return replace(self, env_args=(*self.env_args, *env_args))

    def make(self, env_id: str, **env_kwargs: Any) -> gymnasium.Env[str, str]:
        """The environment ``env_id`` in these words; arguments for the world may stand behind it,
        as in 'ID name=value ...'."""
        env_id, *written = env_id.split() or [env_id]
        given = {name: getattr(self, name) for name in TEXT_OPTIONS}
        words = {name: value for name, value in given.items() if value != getattr(TextConfig, name)}
        arguments = dict(map(_argument, (*self.env_args, *written)))
        with names_from(self.source):
            return make(env_id, **{**words, **arguments, **env_kwargs})


TAKEN = ("env_id", "id", "world", "disable_env_checker")  # what making a world means by itself


def _argument(text: str) -> tuple[str, Any]:
    """A world's argument, read as YAML; of the text options only what their types are."""
    name, equals, written = text.partition("=")
    if not equals or not name:
        raise LangAgentError(f"The world's argument {shown(text)} must read name=value.")
    if name in TAKEN:
        raise LangAgentError(f"The world's argument {shown(text)} is not one that can be given.")
    value = read_yaml(written, f"The world's argument {shown(text)}")
    if name not in TEXT_OPTIONS:
        return name, value
    if name == "actions" and isinstance(value, Mapping):  # new wording -> the world's phrase
        return name, {str(new): str(own) for new, own in value.items()}
    return name, value_as(get_type_hints(TextConfig)[name], value, f"The world's argument {name}")


def describe(text: TextConfig) -> dict[str, Any]:
    """Text options as results keep them: the template by the digest of its text."""
    return {
        "prompt": text.prompt,
        "template": digest(text.prompt, text.prompt_folder),
        "prompt_folder": text.prompt_folder,
        "renderer": text.renderer,
        "wording": text.wording,
        "invalid_action": text.invalid_action,
        "actions": list(text.actions),
        "env_args": list(text.env_args),
    }
