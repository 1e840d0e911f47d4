"""``lang-agent completion``: a script that completes commands, flags and values in a shell.

The script holds all the words it offers, so that completing starts no Python.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from lang_agent.cli.help import HELP, Option, groups_of
from lang_agent.errors import unknown

AGENTS, POLICIES, SIZES = (
    ("random", "expert", "human"),
    ("babyai", "smollm2"),
    ("pico", "nano", "mini", "micro", "small"),
)
"""Names that are offered, told here so that nothing large is imported for them."""
SHELLS = ("bash", "zsh", "fish")
PATHS = ("DIR", "FILE", "OUT", "RUN", "SOURCE", "TEMPLATE", "AGENT", "MODEL", "TASK")
"""What may be a file or folder, by what help calls it."""


def script(shell: str, commands: Mapping[str, Any], words: Mapping[str, list[str]]) -> str:
    """The script for a shell.

    Args:
        commands: the dataclass of each command's options.
        words: what is offered for a value, by what help calls it.
    """
    if shell not in SHELLS:
        raise unknown("shell", shell, SHELLS)
    return _fish(commands, words) if shell == "fish" else _bash(commands, words, shell)


def _options(kind: Any) -> list[Option]:
    return [option for options in groups_of(kind).values() for option in options]


def _flags(kind: Any) -> str:
    return " ".join([*(o.flag for o in _options(kind) if not o.positional), *HELP[1:]])


def _bash(commands: Mapping[str, Any], words: Mapping[str, list[str]], shell: str) -> str:
    """bash's, which zsh runs as well."""
    lines = [f'    local {name}="{" ".join(offered)}"' for name, offered in words.items()]
    lines.append('    case "${COMP_WORDS[1]}" in')
    for name, kind in commands.items():
        lines.append(f'        {name}) flags="{_flags(kind)}"')
        takes: dict[str, list[str]] = {}
        for option in _options(kind):
            if option.positional:
                lines.append(f"            {_values(option.metavar, words)}")
            elif option.metavar:
                takes.setdefault(_values(option.metavar, words), []).append(option.flag)
        lines.append('            case "$before" in')
        lines += [f'            {"|".join(of)}) flags=""; {taken};;' for taken, of in takes.items()]
        lines.append("            esac;;")
    lines.append("    esac")
    first = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return BASH.format(first=first, names=" ".join(commands), cases="\n".join(lines))


def _values(metavar: str, words: Mapping[str, list[str]]) -> str:
    values = f"${metavar}" if metavar in words else ""
    return f'values="{values}"; files="{"yes" if metavar in PATHS else ""}"'


BASH = """\
# lang-agent's completion; `lang-agent completion` says where this goes.
{first}_lang_agent() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local flags="" values="" files=""
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{names} --help --version" -- "$word"))
        return
    fi
{cases}
    [[ "$word" == -* ]] && values="$flags" && files=""
    COMPREPLY=($(compgen -W "$values" -- "$word"))
    if [[ -n "$files" ]]; then
        local IFS=$'\\n'
        COMPREPLY+=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _lang_agent lang-agent
"""


def _fish(commands: Mapping[str, Any], words: Mapping[str, list[str]]) -> str:
    lines = ["# lang-agent's completion.", "complete -c lang-agent -f"]
    for name in commands:
        lines.append(f"complete -c lang-agent -n __fish_use_subcommand -a {name}")
    for name, kind in commands.items():
        here = f"complete -c lang-agent -n '__fish_seen_subcommand_from {name}'"
        for option in _options(kind):
            offered = " ".join(words.get(option.metavar, ()))
            told = shlex.quote(option.help.partition(". ")[0].replace("'", "’"))
            values = [f"-a '{offered}'"] if offered else []
            values += ["-F"] if option.metavar in PATHS else []
            if option.positional and values:
                lines.append(" ".join([here, *values]))
            elif not option.positional:
                needs = ["-x" if option.metavar not in PATHS else "-r"] if option.metavar else []
                flag = ["-l", option.flag[2:], "-d", told]
                lines.append(" ".join([here, *flag, *needs, *values]))
    return "\n".join(lines) + "\n"
