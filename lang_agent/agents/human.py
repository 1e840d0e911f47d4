"""A person as an agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lang_agent.episode import Agent, Decision, TextObservation


class HumanAgent(Agent):
    """Shows a person what is new in each prompt and reads the answer; the end of the input ends
    the game.

    Args:
        show: shows a text.
        ask: returns the answer; raises EOFError where there is none.
    """

    slots = 1

    def __init__(
        self, show: Callable[[str], object] = print, ask: Callable[[str], str] = input
    ) -> None:
        self._show, self._ask = show, ask
        self._shown = ""

    def begin(self, slot: int, seed: int) -> None:
        self._shown = ""

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        prompt = observations[0].prompt
        new = prompt[len(self._shown) :] if prompt.startswith(self._shown) else prompt
        self._show(new.strip("\n"))
        try:
            said = self._ask("> ")
        except EOFError:
            raise KeyboardInterrupt from None
        self._shown = prompt + said
        return [Decision(said)]
