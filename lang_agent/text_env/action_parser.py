"""From what was written to one of the admissible phrases, with a verdict on how it was understood.

Where the text has "Action:" in it, what follows the last one is read (text before it is thinking).
The steps are tried in order and the first that applies decides:

``exact``       the text is a phrase, letter for letter; so is what follows the marker, without the
                white space around it
``normalised``  it is one after Unicode, case, punctuation and spacing are evened out
``contained``   exactly one phrase stands in it as whole words ("I will turn left now"); in scripts
                that put no spaces between words, as consecutive characters
``near``        it is one phrase with slips of the pen ("trun left", "picup"), and no other as near
``invalid``     anything else, and always when two different phrases fit equally well

What is read never contradicts what is written. So

- a sentence that contains a phrase is not read where a negation stands beside the phrase ("do not
  turn left"), a number follows it ("go forward 3 times"), or, for a phrase with a number, there is
  another number. Negations are known in some twenty languages, number words in English;
- a number has its sign and its fraction: "-1" and "1.5" are not "1";
- a slip is one letter too many, too few or other, or two neighbours swapped, in a word of four
  letters or more whose first letter is right; or a space too many or too few. What was written
  must be no word: neither one of the admissible phrases' nor an English one (``words.txt``), so
  that "lift" is never "left", nor "lock" "unlock". Scripts without capital letters have no slips.
  They are told by the optimal string alignment distance (rapidfuzz);
- phrases that differ in case or punctuation alone are told apart letter for letter, or not at all.

At most ``MAX_READ`` characters are read, in linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from rapidfuzz.distance import OSA

from lang_agent.errors import LangAgentError
from lang_agent.words import MARKS, UNSPACED

Verdict = Literal["exact", "normalised", "contained", "near", "invalid"]

MARKER = "Action:"
OPENING, CLOSING = "<|ACTION|>", "<|END|>"  # marks around an action, which some prompts ask for
MAX_READ = 10_000  # characters after the marker
SHOWN = 200  # characters of a text that a reason repeats
SLIP = 4  # letters of the shortest word in which a slip is forgiven

NEGATIONS = frozenset(
    """
    no not dont doesnt didnt wont cant cannot couldnt wouldnt shouldnt mustnt shant isnt arent wasnt
    werent aint neednt never none nothing nobody nowhere neither nor without avoid avoiding refuse
    instead rather unless except wrong mistake impossible unable forbidden stop cancel undo ignore
    opposite hardly minus negative
    ne pas non jamais rien sans aucun nicht kein keine keinen keiner nie niemals ohne nein nunca sin
    nada mai senza não nunca sem не нет ни никогда без niet geen nooit zonder nie bez inte ej aldrig
    utan ikke aldri ei älä değil hayır không đừng tidak jangan bukan لا لن لم ليس לא אל नहीं मत
    안 못 마 말고 말아 마세요 아니 아니요 않고 않는다
    """.split()  # noqa: SIM905
)
"""Words beside which a phrase is not what is meant."""
UNSPACED_NEGATIONS = (
    "不", "没", "沒", "别", "別", "勿", "莫", "未", "无", "無", "非", "否", "禁", "ない", "ません",
    "ずに", "ぬ", "やめ", "だめ", "ไม่", "อย่า", "ห้าม", "มิ", "កុំ", "មិន", "ບໍ່", "ຢ່າ", "မ",
)  # fmt: skip
"""The same in scripts that put no spaces between words."""
PROHIBITIVE = "な"  # Japanese: at the end of a verb it forbids
NUMBERS = frozenset(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred thousand million billion dozen half twice thrice
    """.split()  # noqa: SIM905
)

MOST_MARKS = 30  # on a letter, as in Unicode's stream-safe format (UAX 15); sorting more is slow
_MANY_MARKS = re.compile(rf"([{MARKS}]{{{MOST_MARKS}}})[{MARKS}]+")
_NEGATED = re.compile(
    r"n['’ʼ]t\b|[≠¬❌✗✘🚫⛔]|(?<!\w)!=?(?=\w)|~~(?=\w)|\b(?:un|dis|de|anti|mis)-(?=\w)"
)
_TOKEN = re.compile(
    rf"(?<!\w)(?P<number>[-+−–]?\.?\d+(?:[.,/⁄:–-]\d+)*)(?![{MARKS}]|\w)"
    rf"|[{UNSPACED}][{MARKS}]*"
    rf"|(?:(?![{UNSPACED}_])[\w{MARKS}])+"
)


@dataclass(frozen=True)
class ParsedAction:
    """The phrase that the text stands for (None when invalid), the verdict, and the reason."""

    action: str | None
    verdict: Verdict
    reason: str = ""


def parse_action(text: str, actions: Sequence[str]) -> ParsedAction:
    """What ``text`` means among the admissible phrases ``actions``.

    Returns:
        The phrase, None where the text is none of them; the verdict (exact, normalised, contained,
        near or invalid); and for an invalid text the reason.

    Raises:
        LangAgentError: ``actions`` is empty, or ``text`` is no string.
    """
    if not actions:
        raise LangAgentError("There is no admissible action to choose from: the list is empty.")
    if not isinstance(text, str):
        raise LangAgentError(
            f"The action {text!r} is no text but {type(text).__name__}: give one of the phrases, "
            f"such as {actions[0]!r}."
        )
    said = answer_part(text)
    for candidate in (text, said):
        if candidate in actions:
            return ParsedAction(candidate, "exact")
    if len(said) > MAX_READ:
        return _invalid(f"{len(said)} characters are more than the {MAX_READ} that are read")
    written = normalise(said)
    if not written:
        return _invalid("nothing was written")
    phrases = _normalised(tuple(actions))
    same = [action for action, phrase in phrases.items() if phrase == written]
    if same:
        return _only(_as_written(same, said), "normalised")
    found, rest = _contained(written, phrases)
    if found:
        distinct = len({phrases[action] for action in found}) == 1
        doubt = _doubt(phrases[found[0]], rest) if distinct else ""
        if doubt:
            return _invalid(f"{_shown(said)} has {doubt}")
        return _only(_as_written(found, said) if distinct else found, "contained")
    slips = {action: _slips(written, phrase, phrases) for action, phrase in phrases.items()}
    near = {action: count for action, count in slips.items() if count is not None}
    if near:
        fewest = min(near.values())
        return _only([action for action, count in near.items() if count == fewest], "near")
    return _invalid(f"{_shown(text)} is none of: {', '.join(actions)}")


def parse_text(text: str) -> ParsedAction:
    """What ``text`` means where any text is an action: its answer as it is, on one line.

    Raises :class:`LangAgentError` when ``text`` is no string.
    """
    if not isinstance(text, str):
        raise LangAgentError(f"The action {text!r} is no text but {type(text).__name__}.")
    said = answer_part(text)
    if len(said) > MAX_READ:
        return _invalid(f"{len(said)} characters are more than the {MAX_READ} that are read")
    line = " ".join(said.split())
    return ParsedAction(line, "exact") if line else _invalid("nothing was written")


def answer_part(text: str) -> str:
    """What of a text is the answer: between the last marks, or behind the last "Action:", or all of
    it."""
    if OPENING in text:
        return text.rpartition(OPENING)[2].partition(CLOSING)[0].strip()
    return text.rpartition(MARKER)[2].strip()


def normalise(text: str) -> str:
    """The words and numbers of a text, a space between them, in lower case: Unicode (NFKC), case,
    punctuation and white space evened out. A character of a script without spaces is a word."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _MANY_MARKS.sub(r"\1", text))
    text = _NEGATED.sub(" not ", text.casefold())
    return " ".join(map(_word, _TOKEN.finditer(text)))


def _word(token: re.Match[str]) -> str:
    if token["number"] is None:
        return token[0]
    return token[0].replace("−", "-").replace("–", "-").lstrip("+")


@lru_cache(maxsize=256)
def _normalised(actions: tuple[str, ...]) -> Mapping[str, str]:
    return {action: normalise(action) for action in actions}


def _contained(written: str, phrases: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Phrases that stand in ``written`` as whole words, but not inside a longer such phrase; and
    the words with an empty one in the place of each phrase."""
    padded = f" {written} "
    found: dict[str, list[str]] = {}
    for action, phrase in phrases.items():
        if phrase and f" {phrase} " in padded:
            found.setdefault(phrase, []).append(action)
    kept: list[str] = []
    for phrase in sorted(found, key=len, reverse=True):
        padded, count = re.subn(rf"(?<= ){re.escape(phrase)}(?= )", "\0", padded)
        if count:
            kept += found[phrase]
    return kept, ["" if word == "\0" else word for word in padded.split()]


def _doubt(phrase: str, rest: Sequence[str]) -> str:
    """What among the other words keeps a phrase from being what is meant; empty if nothing does."""
    no = next((word for word in rest if word in NEGATIONS), "")
    joined = "".join(rest)
    no = no or next((sign for sign in UNSPACED_NEGATIONS if sign in joined), "")
    after = [word for at, word in enumerate(rest) if "" in rest[max(at - 2, 0) : at]]
    if no or after[:1] == [PROHIBITIVE]:
        return f"a negation in it ({no or PROHIBITIVE!r})"
    numbered = any(map(_is_number, phrase.split()))
    number = next(filter(_is_number, rest if numbered else after), "")
    return f"another number in it ({number})" if number else ""


def _is_number(word: str) -> bool:
    return word in NUMBERS or any(map(str.isnumeric, word))


def _as_written(same: list[str], said: str) -> list[str]:
    """Of phrases that differ in case and punctuation alone, those written so; all if none is."""
    if len(same) == 1:
        return same
    said, found = unicodedata.normalize("NFKC", said), []
    for action in sorted(same, key=len, reverse=True):
        literal = re.escape(unicodedata.normalize("NFKC", action.strip()))
        said, count = re.subn(rf"(?<!\w){literal}(?!\w)", "\0", said)
        if count:
            found.append(action)
    return found or same


def _slips(written: str, phrase: str, phrases: Mapping[str, str]) -> int | None:
    """In how many words ``written`` is a misspelling of ``phrase``; None where it is something
    else."""
    words, wanted = written.split(), phrase.split()
    if len(words) != len(wanted):
        return _spacing(words, wanted, phrases)
    wrong = [pair for pair in zip(words, wanted, strict=True) if pair[0] != pair[1]]
    slips = all(_is_slip(*pair) and not _is_known(pair[0], phrases) for pair in wrong)
    return len(wrong) if slips else None


def _spacing(words: Sequence[str], wanted: Sequence[str], phrases: Mapping[str, str]) -> int | None:
    """As :func:`_slips`, of words that were run together or broken up. A letter may then be missing
    or too many, but none be another: "turnof" could be on as well as off."""
    both = (*words, *wanted)
    if any(len(word) == 1 and not word.isnumeric() for word in both):
        return None
    if not NEGATIONS.isdisjoint(both) or _digits(words) != _digits(wanted):
        return None
    one, other = "".join(words), "".join(wanted)
    if one == other:
        return 1
    known = all(_is_known(word, phrases) for word in words)
    return 1 if len(one) != len(other) and not known and _is_slip(one, other) else None


def _digits(words: Sequence[str]) -> list[str]:
    return re.findall(r"\d+", " ".join(words))


def _is_slip(word: str, wanted: str) -> bool:
    """Whether the one is the other with one slip of the pen."""
    return (
        min(len(word), len(wanted)) >= SLIP
        and word[0] == wanted[0]
        and abs(len(word) - len(wanted)) <= 1
        and all(letter != letter.upper() for letter in word + wanted)
        and OSA.distance(word, wanted, score_cutoff=1) <= 1
    )


def _is_known(word: str, phrases: Mapping[str, str]) -> bool:
    if word in NEGATIONS or word in NUMBERS or word in _english():
        return True
    return any(word in phrase.split() for phrase in phrases.values())


@lru_cache(maxsize=1)
def _english() -> frozenset[str]:
    lines = (
        files("lang_agent.text_env").joinpath("words.txt").read_text(encoding="utf-8").splitlines()
    )
    return frozenset(line for line in lines if not line.startswith("#"))


def _only(found: list[str], verdict: Verdict) -> ParsedAction:
    if len(found) == 1:
        return ParsedAction(found[0], verdict)
    return _invalid(f"ambiguous between: {', '.join(sorted(found))}")


def _invalid(reason: str) -> ParsedAction:
    return ParsedAction(None, "invalid", reason)


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
