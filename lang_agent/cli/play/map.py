"""The grid of a world as coloured text, two characters a cell, with what they mean.

Where there are no colours, the second character of a cell still tells its colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT
from rich.text import Text

AGENT = "▶▼◀▲"  # looking right, down, left, up
SYMBOLS = {"ball": "●", "key": "k", "box": "■", "goal": "★", "lava": "≈", "floor": "░"}
DOORS = {0: ("/", "open door"), 1: ("D", "closed door"), 2: ("L", "locked door")}
COLOURS = {
    "red": ("r", "#ff5f5f"),
    "green": ("g", "#5fd75f"),
    "blue": ("b", "#5fafff"),
    "purple": ("p", "#d787ff"),
    "yellow": ("y", "#ffd75f"),
    "grey": ("e", "#bcbcbc"),
}
WALL, FLOOR = "#767676", "#585858"


def draw(cells: Mapping[str, Any], width: int, height: int) -> tuple[Text, Text]:
    """The map, or what of it around the agent ``width`` and ``height`` characters have room for;
    and the legend of what is on it."""
    columns, rows = cells["size"]
    x, y, direction = cells["agent"]
    across, down = min(columns, max(width // 2, 1)), min(rows, max(height, 1))
    left = min(max(x - across // 2, 0), columns - across)
    top = min(max(y - down // 2, 0), rows - down)
    drawn, seen = Text(no_wrap=True), []
    for row in range(top, top + down):
        for column in range(left, left + across):
            at = 3 * (column * rows + row)
            if (column, row) == (x, y):
                drawn.append(f"{AGENT[direction]} ", "bold reverse")
                continue
            cell = _cell(*cells["grid"][at : at + 3])
            drawn.append(cell.sign + cell.letter, cell.style)
            seen.append(cell)
        drawn.append("\n")
    drawn.right_crop(1)
    carried = cells.get("carrying")
    legend = Text(no_wrap=True)
    if carried is not None:
        cell = _cell(carried[0], carried[1], 0)
        legend.append("carries ", "bold").append(cell.sign + cell.letter, cell.style)
        legend.append(f" {cell.colour} {cell.name}\n")
        seen.append(cell)
    signs = {AGENT[direction]: "player", **{one.sign: one.name for one in seen if one.name}}
    letters = {one.letter: (one.colour, one.style) for one in seen if one.colour}
    _columns(legend, [(sign, name, "") for sign, name in signs.items()])
    _columns(legend, [(letter, name, style) for letter, (name, style) in sorted(letters.items())])
    if (across, down) != (columns, rows):
        legend.append(f"part of {columns} x {rows} cells\n", "dim")
    legend.rstrip()
    return drawn, legend


def _columns(legend: Text, entries: Sequence[tuple[str, str, str]]) -> None:
    """Add signs and what they mean, two in a line."""
    for at, (sign, name, style) in enumerate(entries):
        last = at % 2 == 1 or at == len(entries) - 1
        legend.append(sign, style or "bold").append(f" {name}" if last else f" {name:<12}")
        legend.append("\n" if last else "")


class _Cell(NamedTuple):
    sign: str
    letter: str
    """Of its colour; or what else fills the cell."""
    style: str
    name: str
    colour: str


def _cell(kind: int, colour: int, state: int) -> _Cell:
    name, shade = IDX_TO_OBJECT.get(kind, "thing"), IDX_TO_COLOR.get(colour, "")
    letter, style = COLOURS.get(shade, ("?", ""))
    if name in ("empty", "unseen"):
        return _Cell("·", " ", FLOOR, "", "")
    if name == "wall":
        return _Cell("█", "█", WALL, name, "")
    if name in ("goal", "lava"):
        return _Cell(SYMBOLS[name], " ", style, name, "")
    if name == "door":
        sign, name = DOORS.get(state, DOORS[1])
        return _Cell(sign, letter, style, name, shade)
    return _Cell(SYMBOLS.get(name, "?"), letter, style, name, shade)
