"""The grid of a world as coloured text, two characters a cell, with what they mean.

Where there are no colours, the second character of a cell still tells its colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, STATE_TO_IDX
from rich.text import Text

AGENT = "▶▼◀▲"  # looking right, down, left, up
SYMBOLS = {"ball": "●", "key": "k", "box": "■", "goal": "★", "lava": "≈"}
DOORS = {STATE_TO_IDX["open"]: "/", STATE_TO_IDX["closed"]: "D", STATE_TO_IDX["locked"]: "L"}
DOOR_WORDS = {"/": "open", "D": "closed", "L": "locked"}
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
    map_, meanings = Text(no_wrap=True), {}
    for row in range(top, top + down):
        for column in range(left, left + across):
            at = 3 * (column * rows + row)
            if (column, row) == (x, y):
                sign, style, meaning = f"{AGENT[direction]} ", "bold reverse", "you, or the agent"
            else:
                sign, style, meaning = _cell(*cells["grid"][at : at + 3])
            map_.append(sign, style)
            if meaning:
                meanings[meaning] = (sign, style)
        map_.append("\n")
    map_.rstrip()
    legend = Text(no_wrap=True)
    for meaning, (sign, style) in sorted(meanings.items(), key=lambda one: one[0] == "wall"):
        legend.append(sign, style).append(f" {meaning}\n")
    carried = cells.get("carrying")
    if carried is not None:
        sign, style, meaning = _cell(carried[0], carried[1], 0)
        legend.append("carrying ", "bold").append(sign, style).append(f" {meaning}\n")
    if (across, down) != (columns, rows):
        legend.append(f"part of {columns} x {rows} cells\n", "dim")
    legend.rstrip()
    return map_, legend


def _cell(kind: int, colour: int, state: int) -> tuple[str, str, str]:
    """(two characters, style, meaning) of a cell."""
    name, shade = IDX_TO_OBJECT.get(kind, "thing"), IDX_TO_COLOR.get(colour, "")
    letter, style = COLOURS.get(shade, (" ", ""))
    if name in ("empty", "unseen"):
        return "· ", FLOOR, ""
    if name == "wall":
        return "██", WALL, "wall"
    if name == "floor":
        return "░░", style, f"{shade} floor"
    if name == "door":
        sign = DOORS.get(state, "D")
        return sign + letter, style, f"{DOOR_WORDS[sign]} {shade} door"
    if name in ("goal", "lava"):
        return SYMBOLS[name] * 2, style, name
    return SYMBOLS.get(name, "?") + letter, style, f"{shade} {name}"
