"""What the screen says beside the map, as text that nothing is read out of."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from lang_agent.cli.play.session import Moment
from lang_agent.cli.play.words import at_step, clean, ending, ending_counts

BAR = 14  # characters of a probability of 1, where there is room
REACHED, MISSED = "#5fd75f", "#ff8787"
EIGHTHS = " ▏▎▍▌▋▊▉"

HELP = """\
Choose what to do by its number, or with the arrow keys and Enter.
Tab or / goes to the line for typing: a phrase (Tab completes it), its
number, ? or q. Up and down bring back what was typed, Escape leaves.

 left, p    look at the step before
 right, n   look at the next step; the newest: the agent takes one
 space      let the agent play, or pause it
 + and -    faster, slower
 t          take over: you decide from the step that is shown, and an
            earlier one is begun again; once more hands back
 a          another episode: the next seed
 r          the same seed again
 s          save the finished episode as a demonstration
 ?          this help
 q          leave (so does Ctrl-D)

The map shows the whole grid; whoever plays reads the words alone."""


def heading(moment: Moment) -> Text:
    """Where the episode stands, in one line."""
    parts = [
        f"seed {moment.seed}",
        at_step(moment.number + (moment.episode is None), moment.limit),
        f"return {moment.total:.3f}",
    ]
    return Text.assemble((moment.level, "bold"), "  ", ", ".join(parts), no_wrap=True)


def goal(moment: Moment) -> Text:
    return Text.assemble(("Goal: ", "bold"), clean(moment.mission)) if moment.mission else Text()


def said(moment: Moment, chosen: str) -> Text:
    """What is read, and what was said to it where that is none of the phrases below."""
    text = Text(moment.words)
    if chosen and chosen not in (moment.actions or ()):
        text.append(f"\n> {clean(chosen)}", "bold")
    return text


def last(moment: Moment) -> Text:
    """What came of the step before, or of the whole episode."""
    if moment.episode is not None:
        colour = REACHED if moment.episode.success else MISSED
        return Text(f"{ending(moment.episode)}.", f"bold {colour}")
    said = f"> {moment.action}: {moment.outcome}" if moment.outcome else ""
    return Text(clean(said), "dim")


def who(moment: Moment, agent: str, playing: bool, delay: float, shown_last: bool) -> Text:
    """Who decides, and what a critic expects."""
    parts: list[str] = []
    if not shown_last:
        parts.append("looking back")
    elif moment.episode is not None:
        parts.append(ending_counts(moment.episode))
    elif moment.by_person:
        parts.append("you decide")
    else:
        pace = f"plays, a step every {delay:g} s" if playing else "pauses"
        parts.append(f"{clean(agent)} {pace}")
    if moment.decision is not None and moment.decision.tokens is not None:
        parts.append(f"value {moment.decision.tokens.value:.3f}")
    if moment.note:
        parts.append(moment.note)
    return Text(", ".join(parts), "bold")


def phrases(moment: Moment, chosen: str, width: int) -> list[Text]:
    """The phrases with their numbers, and bars where an agent weighed them; the chosen one is
    marked."""
    actions = moment.actions or ()
    decision = moment.decision
    weighed = decision is not None and len(decision.probabilities) == len(actions)
    longest = max((cell_len(clean(action)) for action in actions), default=0)
    room = max(min(BAR, width - longest - 13), 1)  # for a bar
    lines = []
    for at, action in enumerate(actions):
        number = f"{at + 1} " if at < 9 else "  "
        mark = "▸" if action == chosen else " "
        name = clean(action)
        padding = " " * (longest - cell_len(name))
        line = Text(f"{mark}{number}{name}{padding}", "bold" if action == chosen else "")
        if weighed and decision is not None:
            probability = float(decision.probabilities[at])
            line.append(f"  {bar(probability, room):<{room}}", "cyan").append(f" {probability:.2f}")
        lines.append(line)
    return lines


def bar(share: float, length: int) -> str:
    whole, part = divmod(round(min(max(share, 0.0), 1.0) * length * 8), 8)
    return "█" * whole + (EIGHTHS[part] if part else "")


def keys(moment: Moment, alone: bool, shown_last: bool) -> Text:
    """The keys that do something now."""
    told = [("p n", "back, on")]
    if moment.episode is not None and shown_last:
        told = [("a", "next seed"), ("r", "same again"), ("p", "back"), ("s", "save")]
    elif not shown_last:
        told.append(("t", "go on from here"))
    elif moment.by_person:
        told = [("1-9", "choose"), ("/", "type"), ("p", "back")]
        if moment.actions is None:
            told = [("Enter", "send"), ("Esc", "keys"), ("/", "type"), ("p", "back")]
        if not alone:
            told.append(("t", "hand back"))
    else:
        told = [("space", "play, pause"), ("n", "step"), ("p", "back"), ("+ -", "pace")]
        told.append(("t", "take over"))
    line = Text(no_wrap=True)
    for key, meaning in [*told, ("?", "help"), ("q", "quit")]:
        line.append(key, "bold reverse").append(f" {meaning}  ")
    return line
