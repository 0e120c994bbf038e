"""What of a reason or a note is in the gate's own words, so that it may leave the machine where texts may not.

Pure: str → str.  Keeps nothing that it does not know: an exception's message, a log line or a quoted value may be a
prompt, an answer or a target.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from gate.reports.own_sentences import HOLES, SENTENCES

CUT = "[the rest is not shared]"

_LABELS = re.compile(
    r"(?:.*, the worst of \d+|guard rail|at look \d+ of \d+ \([\d,]+ (?:tokens|pairs of blocks)\)"
    r"|one item shows nothing|nothing can be concluded|the first|and the second (?:could not be judged|decides nothing)"
    r"|confirmed|red once and not confirmed|.*the time budget left was \d+ s|metric '[^']*'(?: is not reported)?"
    r"|pass_at_k|judge|baseline|candidate"
    r"|decided again from run \S+ of \S+|decided from finished results|not asked by this policy|not judged|not run"
    r"|not selected|not measured|the (?:baseline|candidate) worker was ended in stage \S+|(?:stage|task|corpus) '[^']*'"
    r"|.*an item without a value is neither right nor wrong|greedy decoding \(temperature 0\))"
)
"""What may stand before a colon, besides a known name, without a foreign text behind it."""

_AMOUNT = (
    r"[\d\s.,%+−–-]*(?:(?:to|of|sure|tokens|documents|items|pairs of blocks|in all|GiB|MiB|pp|s)\b[\d\s.,%+−–-]*)*"
)
_PARENTHESES = re.compile(
    rf"\((?:(?=\d){_AMOUNT}|--keep-going [a-z ]+|temperature 0|the interval spans both|population scope"
    r"|an out-of-memory kill is the usual cause(?:, and this machine counts \d+ since the worker started)?"
    r"|(?:(?:baseline|candidate) \w+: \d+(?:, )?)+)\)"
)
_OPENING = re.compile(r"(?P<colon>:(?=\s|$))|(?P<parenthesis>\()|(?P<quote>(?<!\w)['\"`])|(?P<part>[;.] )")
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|`([^`]*)`")
_REPR = r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
_ITEMS = re.compile(rf", for instance {_REPR}(?:, {_REPR})*")
_MAX_CHARACTERS, _MAX_PARTS = 4000, 64
"""Of a line that is held against sentences: a record may come from anywhere, and this must end soon."""

_HOLE = re.compile(r"\{([^{}]*)\}")
_MORE = re.compile(r" and [\d,]+ more$")
_FIRST_ITEM = re.compile(r"( the first failure is \w+) on .*$")


def without_items(text: str) -> str:
    """The text without the ids of items that it names."""
    return _ITEMS.sub("", text)


def own_words(text: str, known: Collection[str]) -> str:
    """As much of the first line as is in the gate's own words; what is cut is said to be missing.

    `known` are names that may be read: those of rules, stages and tasks, and what the policy says.
    """
    line, *others = without_items(text).split("\n", 1)
    end = _end(line, known)
    if end == len(line):
        return line if not others else f"{line.rstrip()} {CUT}"
    kept = _FIRST_ITEM.sub(r"\1", line[:end].rstrip(" :(,;"))
    return f"{kept} {CUT}".strip()


def _end(line: str, known: Collection[str]) -> int:
    """Where the gate's own words end."""
    at = label = _past_sentence(line, 0, known)
    parts = 0
    while (found := _OPENING.search(line, at)) is not None:
        begin = found.start()
        if found["colon"] or found["part"]:
            said = line[label:begin].strip()
            if found["colon"] and said not in known and not _LABELS.fullmatch(said):
                return begin
            parts += 1
            at = label = _past_sentence(line, found.end(), known) if parts < _MAX_PARTS else found.end()
        elif found["parenthesis"]:
            own = _PARENTHESES.match(line, begin)
            named = re.compile(r"\(([^()]*)\)").match(line, begin)
            if own is None and (named is None or named[1] not in known):
                return begin
            at = (own or named or found).end()
        else:
            quoted = _QUOTED.match(line, begin)
            if quoted is None or next(q for q in quoted.groups() if q is not None) not in known:
                return begin
            at = quoted.end()
    return len(line)


def _past_sentence(line: str, at: int, known: Collection[str]) -> int:
    """The end of one of the gate's sentences that begins there; `at` where none does."""
    if len(line) > _MAX_CHARACTERS:
        return at
    begin = at + len(line[at:]) - len(line[at:].lstrip())
    for head, pattern, holes in _sentences():
        if line.startswith(head, begin):
            found = pattern.match(line, begin)
            if found is not None and all(_fits(h, t, known) for h, t in zip(holes, found.groups(), strict=True)):
                return _past_sentence(line, found.end(), known) if found[0].endswith(" ") else found.end()
    return at


def _fits(hole: str, text: str, known: Collection[str]) -> bool:
    """Whether a hole may be filled so; for the most part its pattern has said that."""
    match hole:
        case "names":
            listed = _MORE.sub("", text)
            return listed in known or all(name in known for name in re.split(r", | and | ", listed))
        case "reason":
            return _end(text, known) == len(text)
        case "own":
            return _past_sentence(text, 0, known) == len(text)
    return True


@cache
def _sentences() -> tuple[tuple[str, re.Pattern[str], tuple[str, ...]], ...]:
    """(how it begins, its pattern, what fills its holes); a reason at its end is read on as any text is."""
    return tuple(_compiled(s) for s in sorted(SENTENCES, key=len, reverse=True))


def _compiled(sentence: str) -> tuple[str, re.Pattern[str], tuple[str, ...]]:
    goes_on = sentence.endswith("{reason}")
    first, *others = _HOLE.split(sentence.removesuffix("{reason}"))
    pattern, holes = re.escape(first), []
    for hole, literal in zip(others[::2], others[1::2], strict=True):
        inside = "|".join(map(re.escape, hole.split("|"))) if "|" in hole else HOLES[hole]
        pattern += f"({inside}){re.escape(literal)}"
        holes.append(hole)
    ends = "" if goes_on else rf"(?=$|[;.:,](?:\s|$)| {re.escape(CUT)})"
    return first, re.compile(pattern + ("$" if sentence.endswith("{own}") else ends)), tuple(holes)
