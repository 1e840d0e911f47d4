"""The screen: a map beside the words, phrases to choose or an agent to watch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import gymnasium
from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static

from lang_agent.cli.console import complain
from lang_agent.cli.play import panels
from lang_agent.cli.play.line import Line
from lang_agent.cli.play.map import draw
from lang_agent.cli.play.session import (
    Accept,
    Begin,
    HandBack,
    Leave,
    Moment,
    Order,
    Say,
    Session,
    Take,
)
from lang_agent.cli.play.words import clean, meant, misread
from lang_agent.episode import Agent, Episode
from lang_agent.errors import LangAgentError
from lang_agent.seeding import EVALUATION_SEED

DELAYS = (4.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.03)
"""Seconds between an agent's steps, from slow to fast."""
LEGEND_ROWS, LEAST_MAP = 8, 6


class Help(ModalScreen[None]):
    """What the keys do; any key leaves it."""

    def compose(self) -> ComposeResult:
        yield Static(panels.HELP, id="help", markup=False)

    def on_key(self, event: events.Key) -> None:
        event.stop()
        self.dismiss()


class PlayApp(App[None]):
    """Plays episodes in an environment and shows them.

    Args:
        agent: who is watched; None where a person plays alone.
        strict: send what is typed to the world even where it is no admissible phrase.
        episodes: how many an agent plays by itself, one after another.
        save: writes a finished episode as a demonstration and returns the file; raises
            :class:`LangAgentError` for one that is not to be learned from.
        record: save every finished episode.
    """

    TITLE = "lang-agent play"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    Screen > Static, #right > Static { height: auto; width: 1fr; }
    #goal { max-height: 3; }
    #middle { height: 1fr; }
    #left { width: auto; max-width: 45%; padding-right: 2; }
    #map, #legend { width: auto; height: auto; }
    #legend { margin-top: 1; }
    #right { width: 1fr; }
    #words { height: 1fr; padding-right: 1; scrollbar-size-vertical: 1; }
    #words Static { height: auto; }
    #phrases { height: auto; max-height: 60%; border: none; padding: 0; background: $background;
               scrollbar-size-vertical: 1; }
    #notice { color: $warning; max-height: 4; }
    #typed { height: 1; border: none; padding: 0; }
    #typing { height: 1; }
    #cue { width: 2; }
    Help { align: center middle; }
    #help { width: auto; height: auto; max-height: 100%; background: $panel; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,p", "look(-1)", show=False),
        Binding("right,n", "look(1)", show=False),
        Binding("space", "pause", show=False),
        Binding("plus,equals_sign", "pace(1)", show=False),
        Binding("minus", "pace(-1)", show=False),
        Binding("t", "take", show=False),
        Binding("a", "another", show=False),
        Binding("r", "same", show=False),
        Binding("s", "save", show=False),
        Binding("slash", "type", show=False),
        Binding("question_mark", "help", show=False),
        Binding("q", "leave", show=False),
        Binding("ctrl+d,ctrl+q", "leave", show=False, priority=True),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        *(Binding(str(number), f"choose({number})", show=False) for number in range(1, 10)),
    ]

    class Shown(Message):
        """The session waits for an order."""

        def __init__(self, moment: Moment) -> None:
            super().__init__()
            self.moment = moment

    class Ended(Message):
        """The session's thread has ended."""

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        agent: Agent | None,
        seed: int,
        *,
        strict: bool = False,
        episodes: int = 1,
        save: Callable[[Episode], Path] | None = None,
        record: bool = False,
    ) -> None:
        super().__init__()
        self.session = Session(
            env,
            agent,
            lambda moment: self.post_message(self.Shown(moment)),
            lambda: self.post_message(self.Ended()),
        )
        self.alone, self.strict, self.seed, self.episodes = agent is None, strict, seed, episodes
        self.agent_name = "" if agent is None else str(agent.about.get("name", "the agent"))
        self.save, self.record = save, record
        self.moments: list[Moment] = []
        self.at = 0  # which of them is shown
        self.playing = not self.alone
        self.interrupted = False
        self.warnings: list[str] = []
        self.pace = 2
        self._waits = False  # the session, for an order
        self._clock: Timer | None = None
        self._finished = 0
        self._saved: list[Episode] = []

    def compose(self) -> ComposeResult:
        yield Static(id="heading", markup=False)
        yield Static(id="goal", markup=False)
        with Horizontal(id="middle"):
            with Vertical(id="left"):
                yield Static(id="map", markup=False)
                yield Static(id="legend", markup=False)
            with Vertical(id="right"):
                with VerticalScroll(id="words", can_focus=False):
                    yield Static(id="said", markup=False)
                yield Static(id="last", markup=False)
                yield Static(id="who", markup=False)
                yield OptionList(id="phrases", markup=False)
        yield Static(id="notice", markup=False)
        with Horizontal(id="typing"):
            yield Static("> ", id="cue", markup=False)
            yield Line(id="typed")
        yield Static(id="keys", markup=False)

    @property
    def _main(self) -> Screen[None]:
        """The screen of the game, also where the help stands before it."""
        return self.screen_stack[0]

    def on_mount(self) -> None:
        self.begin_capture_print(self, stdout=False)
        self._main.query_one("#phrases").focus()
        self.session.start(self.seed)
        self._wait()

    def on_print(self, event: events.Print) -> None:
        """A warning: the terminal is ours, so that it is shown here, and once more at the end."""
        warning = event.text.strip().removeprefix("lang-agent: ")
        if warning:
            self.warnings.append(warning)
            self.tell(warning)

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    # -- what the session says ---------------------------------------------------------------------

    def on_play_app_shown(self, message: PlayApp.Shown) -> None:
        moment = message.moment
        followed = self.at >= len(self.moments) - 1 or moment.number <= self.at
        again = moment.number < len(self.moments)
        self.moments = [*self.moments[: moment.number], moment]
        self._waits = True
        if followed:
            self.at = moment.number
            if moment.number and not again:
                self.tell("")
            self.draw()
        if moment.episode is not None:
            self._over(moment.episode)
        self._set_clock()

    def _set_clock(self) -> None:
        """While an agent plays, its next step comes by itself."""
        if self._clock is not None:
            self._clock.stop()
        if self._agent_is_next() and self.playing:
            self._clock = self.set_timer(DELAYS[self.pace], self._go_on)

    def _agent_is_next(self) -> bool:
        moment = self.moments[-1] if self.moments else None
        return moment is not None and moment.decision is not None and not moment.by_person

    def _go_on(self) -> None:
        if self.playing and self._waits and self._agent_is_next():
            self.order(Accept())

    def _over(self, episode: Episode) -> None:
        self._finished += 1
        if self.record:
            self._save(episode)
        if self.playing and self._finished < self.episodes:
            self.set_timer(max(DELAYS[self.pace], 1.0), lambda: self._next(episode))

    def _next(self, episode: Episode) -> None:
        if self.playing and self.moments and self.moments[-1].episode is episode:
            self.action_another()

    def on_play_app_ended(self) -> None:
        self.exit()

    def order(self, order: Order) -> None:
        """Give the session an order, if it waits for one."""
        if self._waits:
            self._waits = False
            self.session.order(order)
            self._wait()

    def _wait(self) -> None:
        """Say so where the next moment is long in coming."""
        who = Text("The world is waited for." if self.alone else "The agent is deciding.", "bold")
        self.set_timer(0.4, lambda: None if self._waits else self._put("who", who))

    # -- drawing -----------------------------------------------------------------------------------

    @property
    def shown(self) -> Moment | None:
        return self.moments[self.at] if self.at < len(self.moments) else None

    @property
    def newest(self) -> bool:
        """Whether the newest moment is shown."""
        return self.at >= len(self.moments) - 1

    def draw(self) -> None:
        moment = self.shown
        if moment is None:
            return
        after = self.moments[self.at + 1] if not self.newest else None
        decision = moment.decision
        chosen = after.action if after is not None else decision.action if decision else ""
        by_person = moment.by_person and self.newest and moment.episode is None
        self._put("heading", panels.heading(moment))
        self._put("goal", panels.goal(moment))
        self._put("said", panels.said(moment, chosen))
        self._put("last", panels.last(moment))
        pace = DELAYS[self.pace]
        self._put("who", panels.who(moment, self.agent_name, self.playing, pace, self.newest))
        self._put("keys", panels.keys(moment, self.alone, self.newest))
        width = self.size.width - self._draw_map(moment)
        listed = self._main.query_one("#phrases", OptionList)
        at = listed.highlighted
        lines = panels.phrases(moment, chosen, width)
        listed.clear_options().add_options(lines)
        listed.display = bool(lines)
        if lines:
            marked = (
                (moment.actions or ()).index(chosen) if chosen in (moment.actions or ()) else at
            )
            listed.highlighted = min(marked or 0, len(lines) - 1)
        line = self._main.query_one("#typed", Line)
        line.complete_from(moment.actions or ())
        self._main.query_one("#typing").display = by_person
        if by_person and moment.actions is None:
            line.focus()
        elif lines and not (by_person and line.has_focus):
            listed.focus()
        self._main.query_one("#words", VerticalScroll).scroll_end(animate=False)

    def _put(self, where: str, text: Text) -> None:
        widget = self._main.query_one(f"#{where}", Static)
        widget.update(text)
        widget.display = bool(text)

    def _draw_map(self, moment: Moment) -> int:
        """Draw the map and its legend; returns how wide they are."""
        left = self._main.query_one("#left")
        left.display = moment.cells is not None
        if moment.cells is None:
            return 0
        rows = self.size.height - 4 - LEGEND_ROWS
        drawn, legend = draw(moment.cells, self.size.width * 2 // 5, max(rows, LEAST_MAP))
        self._put("map", drawn)
        self._put("legend", legend)
        return max(line.cell_len for text in (drawn, legend) for line in text.split()) + 2

    def tell(self, sentence: str) -> None:
        """Show a sentence until something else happens."""
        self._put("notice", Text(clean(sentence)))

    # -- what the person does ----------------------------------------------------------------------

    def say(self, typed: str) -> None:
        """Send what was typed or chosen to the world, if it is anything."""
        moment = self.shown
        if moment is None or not (self.newest and moment.by_person and moment.episode is None):
            return
        actions = moment.actions
        said = typed if self.strict else meant(typed, actions)
        if said is None:
            self.tell(misread(typed, actions or ()))
        else:
            self.order(Say(said))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        line = self._main.query_one("#typed", Line)
        typed = line.take()
        moment = self.shown
        known = moment is not None and typed.strip() in (moment.actions or ())
        if typed.strip() == "q" and not known:
            self.action_leave()
        elif typed.strip() == "?" and not known:
            self.action_help()
        elif typed.strip() or self.strict:
            self.say(typed)

    def on_line_left(self) -> None:
        listed = self._main.query_one("#phrases", OptionList)
        self._main.set_focus(listed if listed.display else None)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.action_choose(event.option_index + 1)

    def action_choose(self, number: int) -> None:
        moment = self.shown
        if moment is None or moment.episode is not None:
            return
        actions = moment.actions or ()
        if not self.newest:
            self.tell("This is an earlier step: t goes on from here.")
        elif not moment.by_person:
            self.tell("The agent decides: t takes over.")
        elif number <= len(actions):
            self.order(Say(actions[number - 1]))
        else:
            self.tell(f"There is no phrase {number}.")

    def action_look(self, by: int) -> None:
        """Look at an earlier step or a later one; behind the newest, the agent takes one."""
        moment = self.shown
        if moment is None:
            return
        self.playing = False
        if by > 0 and self.newest:
            if self._agent_is_next():
                self.order(Accept())
            return
        self.at = min(max(self.at + by, 0), len(self.moments) - 1)
        self.tell("")
        self.draw()

    def action_pause(self) -> None:
        if self.alone:
            return
        self.playing = not self.playing
        self.at = max(len(self.moments) - 1, 0)
        self.draw()
        self._go_on()

    def action_pace(self, by: int) -> None:
        self.pace = min(max(self.pace + by, 0), len(DELAYS) - 1)
        self._set_clock()
        self.draw()

    def action_take(self) -> None:
        """Take over at the step that is shown, or hand back."""
        moment = self.shown
        if moment is None:
            return
        if self.newest and moment.episode is not None:
            self.tell("The episode is over: p goes back to an earlier step, r begins it again.")
        elif self.newest and moment.by_person:
            if self.alone:
                self.tell("You decide already.")
            else:
                self.order(HandBack())
        elif not self._waits:
            self.tell("The agent is still deciding: take over once it has.")
        else:
            self.playing = False
            self.order(Take(self.at))

    def action_another(self) -> None:
        self._begin(self.moments[-1].seed + 1 if self.moments else self.seed)

    def action_same(self) -> None:
        self._begin(self.moments[-1].seed if self.moments else self.seed)

    def _begin(self, seed: int) -> None:
        if self.record and seed >= EVALUATION_SEED:
            self.tell(f"Seed {seed} is kept for evaluation: it cannot be recorded.")
            return
        if self._waits:
            self.moments, self.at = [], 0
            self.tell("")
        self.order(Begin(seed))

    def action_save(self) -> None:
        episode = self.moments[-1].episode if self.moments else None
        if episode is None:
            self.tell("An episode can be saved once it is over.")
        else:
            self._save(episode)

    def _save(self, episode: Episode) -> None:
        if self.save is None:
            return
        if any(episode is one for one in self._saved):
            self.tell("This episode is saved already.")
            return
        try:
            file = self.save(episode)
        except LangAgentError as error:
            self.tell(str(error))
            return
        self._saved.append(episode)
        self.tell(f"Saved in {file}.")

    def action_type(self) -> None:
        line = self._main.query_one("#typed", Line)
        if self._main.query_one("#typing").display:
            line.focus()

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_interrupt(self) -> None:
        self.interrupted = True
        self.action_leave()

    def action_leave(self) -> None:
        self.session.order(Leave())
        self.exit()


def run_app(app: PlayApp) -> None:
    """Run the app; what went wrong in its environment or agent is raised once it is closed."""
    try:
        app.run()
    finally:
        app.session.close()
    for warning in app.warnings:
        complain(warning)
    if app.session.error is not None:
        raise app.session.error
    if app.interrupted:
        raise KeyboardInterrupt
