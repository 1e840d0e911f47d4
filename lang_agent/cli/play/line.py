"""The line that is typed in: editing, history and completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input


class Line(Input):
    """An input whose arrow keys bring back what was typed before, and whose Tab completes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "back", show=False),
        Binding("down", "on", show=False),
        Binding("tab", "complete", show=False),
        Binding("escape", "leave", show=False),
    ]

    class Left(Message):
        """The person has left the line."""

    def __init__(self, id: str) -> None:
        super().__init__(compact=True, select_on_focus=False, id=id)
        self.history: list[str] = []
        self._phrases: tuple[str, ...] = ()
        self._at = 0  # of the history; its length: the new line

    def complete_from(self, phrases: Sequence[str]) -> None:
        self._phrases = tuple(phrases)
        self.suggester = SuggestFromList(self._phrases, case_sensitive=False) if phrases else None

    def take(self) -> str:
        """The line that was typed, which is now a part of the history."""
        typed = self.value
        if typed and self.history[-1:] != [typed]:
            self.history.append(typed)
        self._at, self.value = len(self.history), ""
        return typed

    def action_back(self) -> None:
        self._show(self._at - 1)

    def action_on(self) -> None:
        self._show(self._at + 1)

    def _show(self, at: int) -> None:
        if 0 <= at <= len(self.history):
            self._at = at
            self.value = "" if at == len(self.history) else self.history[at]
            self.cursor_position = len(self.value)

    def action_complete(self) -> None:
        """Complete what was begun; where nothing was, go on to the list."""
        begun = self.value.casefold()
        whole = next((one for one in self._phrases if one.casefold().startswith(begun)), None)
        if not begun:
            self.action_leave()
        elif whole is not None:
            self.value = whole
            self.cursor_position = len(whole)

    def action_leave(self) -> None:
        self.post_message(self.Left())
