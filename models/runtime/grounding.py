"""Whether a generated sentence may stand beside a decision: text in, a reason against it or none out. No model, no I/O.

A language model that looks at a picture may say anything, so its sentence is checked against what was decided, never
the other way round. It is dropped when it is no sentence in the language asked for, or when it contradicts:

* class: it names another class of the line, or denies the called one ("no scratch");
* verdict: it says passed of a rejected part, rejected of a passed one, or either of a part that a person must judge;
* condition: it says flawless where a defect was called, or defective where a good class was called.

A mention is negated by a word of denial before it in the same clause, with at most six words (in Chinese ten
characters) and no "because of" or "due to" between, or by one right behind it ("scratch-free", "scratch is absent").
"Not only" denies nothing.
The rules see words, not sense: a sentence that contradicts in other words passes, and an innocent one that happens to
use another class's name is dropped. What is left out: whether the sentence is true of the picture. Nothing here can
know that, which is why it is shown as the model's words and never counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from models.runtime.explain import Language, Place, Verdict

MAX_CHARS = 300
MIN_WORDS = 3
"""Of a sentence; Chinese characters count as words."""
MAX_RUN = 4
"""That often the same word in a row is a loop, not a sentence."""
MIN_DISTINCT = 0.4
LONG = 8
"""From that many words on, fewer than `MIN_DISTINCT` different ones are a loop."""
MIN_SCRIPT = 0.4
"""Share of a sentence's letters in the script of its language; class names may be in the other one."""


class Dropped(StrEnum):
    """Why there is no generated sentence."""

    EMPTY = "empty"
    UNFINISHED = "unfinished"
    GARBLED = "garbled"
    OTHER_LANGUAGE = "other_language"
    OTHER_CLASS = "other_class"
    OTHER_VERDICT = "other_verdict"
    OTHER_CONDITION = "other_condition"

    def words(self, language: Language) -> str:
        """For the person who asked for the sentence."""
        return _WHY[language][self]


_WHY = {
    "en": {
        Dropped.EMPTY: "the model generated nothing",
        Dropped.UNFINISHED: "no sentence was finished within the limits of length and time",
        Dropped.GARBLED: "what the model generated is no sentence",
        Dropped.OTHER_LANGUAGE: "the model answered in another language",
        Dropped.OTHER_CLASS: "the model's words contradict the called class",
        Dropped.OTHER_VERDICT: "the model's words contradict the verdict",
        Dropped.OTHER_CONDITION: "the model's words contradict the decision on whether there is a defect",
    },
    "zh": {
        Dropped.EMPTY: "模型没有生成内容",
        Dropped.UNFINISHED: "在长度和时间限制内没有生成完整的句子",
        Dropped.GARBLED: "模型生成的内容不是句子",
        Dropped.OTHER_LANGUAGE: "模型使用了另一种语言",
        Dropped.OTHER_CLASS: "模型的话与判定的类别矛盾",
        Dropped.OTHER_VERDICT: "模型的话与判定结果矛盾",
        Dropped.OTHER_CONDITION: "模型的话与有无缺陷的判定矛盾",
    },
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was decided. `defects` says of every class of the line, by name, whether it is a defect; it has `name`."""

    verdict: Verdict
    name: str
    defects: dict[str, bool]
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A sentence that may be shown, or why there is none. Exactly one of the two is there."""

    text: str | None
    dropped: Dropped | None


_END = re.compile(r"[.!?](?=\s|$)|[。！？]")
_TURN = re.compile(r"\n\s*\n|\b(?:User|Assistant)\s*:|<[|｜]|</?s>")
_CJK = re.compile(r"[\u3400-\u9fff]")
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+(?:['’][^\W_]+)?")
_CLAUSE = re.compile(r"[.,;:!?，。；：！？]")
_DENIED = re.compile(
    r"(?:\b(?:no|not|non|without|never|cannot|neither|nor|lacks?|lacking|free of|free from|absence of|\w+n['’]t)\b"
    r"(?! only)(?:\s+(?!(?:because|due|but)\b)[\w'’]+){0,6}\s*|(?:无|没有|没|未|不|非)[^\W_]{0,10})$"
)
_DENIED_BEHIND = re.compile(
    r"\s*(?:free\b|(?:is|are|was|were)\s+(?:absent|missing|not\b|n['’]t)|(?:不存在|不明显|未见))"
)
_PASSED = (r"\b(?:pass|passes|passed|accept|accepted|acceptable|accepts)\b", r"合格", r"通过")
_REJECTED = (r"\b(?:reject|rejects|rejected|fail|fails|failed|unacceptable)\b", r"剔除", r"报废", r"拒收")
_FLAWLESS = (
    r"\b(?:flawless|undamaged|intact|faultless|unblemished)\b", r"\b(?:defect|flaw|damage|fault)s? free\b",
    r"完好", r"无瑕", r"完美",
)  # fmt: skip
_FLAWED = (
    r"\b(?:defect|defects|defective|flaw|flaws|flawed|damage|damages|damaged|faulty|fault|faults)\b", r"缺陷", r"瑕疵",
    r"损坏", r"破损",
)  # fmt: skip


def tidy(text: str, *, finished: bool) -> str | None:
    """What was generated as one line for a page: the first turn only, whole sentences, no control or formatting
    characters, at most `MAX_CHARS`. None when there is no whole sentence.

    Args:
        finished: the model ended by itself, so what lacks a full stop is still whole.
    """
    own = _TURN.split(text.lstrip(), maxsplit=1)[0]
    line = " ".join("".join(" " if _is_hidden(c) else c for c in unicodedata.normalize("NFC", own)).split())
    if finished and len(line) <= MAX_CHARS:
        return line
    ends = [found.end() for found in _END.finditer(line) if found.end() <= MAX_CHARS]
    return line[: ends[-1]] if ends else None


def _is_hidden(character: str) -> bool:
    """Control, formatting (bidirectional overrides), surrogate, private: anything that no sentence needs."""
    return unicodedata.category(character).startswith(("C", "Zl", "Zp"))


def judge(generated: str, facts: Facts, *, language: Language, finished: bool) -> Judged:
    """The rule of this module.

    Args:
        generated: as decoded from tokens.
        finished: whether the model ended by itself, not at a limit.
    """
    if not generated.strip():
        return Judged(None, Dropped.EMPTY)
    text = tidy(generated, finished=finished)
    if text is None:
        return Judged(None, Dropped.UNFINISHED)
    dropped = _no_sentence(text, language) or _contradiction(text, facts)
    return Judged(None, dropped) if dropped else Judged(text, None)


def _no_sentence(text: str, language: Language) -> Dropped | None:
    words = [word.casefold() for word in _WORD.findall(text)]
    letters = [c for c in text if c.isalpha()]
    shown = sum(not c.isspace() for c in text)
    if not letters:
        return Dropped.EMPTY if not words else Dropped.GARBLED
    if len(words) < MIN_WORDS or 2 * len(letters) < shown or "\N{REPLACEMENT CHARACTER}" in text or _loops(words):
        return Dropped.GARBLED
    chinese = sum(bool(_CJK.match(c)) for c in letters) / len(letters)
    share = chinese if language == "zh" else sum(c.isascii() for c in letters) / len(letters)
    return Dropped.OTHER_LANGUAGE if share < MIN_SCRIPT else None


def _loops(words: Sequence[str]) -> bool:
    if any(len(set(words[i : i + MAX_RUN])) == 1 for i in range(len(words) - MAX_RUN + 1)):
        return True
    return len(words) >= LONG and len(set(words)) / len(words) < MIN_DISTINCT


def _contradiction(text: str, facts: Facts) -> Dropped | None:
    plain = re.sub(r"[_\-\s]+", " ", text.casefold())
    names = [name for name in facts.defects if any(c.isalnum() for c in name)]  # others cannot be told in a sentence
    for name, denied in _mentions(plain, {_pattern(name): name for name in names}):
        if denied == (name == facts.name):
            return Dropped.OTHER_CLASS
    verdicts = {**dict.fromkeys(_PASSED, "pass"), **dict.fromkeys(_REJECTED, "reject")}
    for side, denied in _mentions(plain, verdicts):
        claimed = side if not denied else _opposite(side)
        if claimed != facts.verdict:
            return Dropped.OTHER_VERDICT
    conditions = {**dict.fromkeys(_FLAWLESS, "good"), **dict.fromkeys(_FLAWED, "bad")}
    for side, denied in _mentions(plain, conditions):
        if ((side == "bad") != denied) != facts.defects[facts.name]:
            return Dropped.OTHER_CONDITION
    return None


def _opposite(side: str) -> str:
    return "reject" if side == "pass" else "pass"


def _pattern(name: str) -> str:
    """A class name as people write it, with English endings; Chinese has no word borders."""
    plain = re.escape(re.sub(r"[_\-\s]+", " ", name.casefold()).strip())
    return plain if _CJK.search(name) else rf"(?<!\w){plain}(?:e?s|e?d|ing)?(?!\w)"


def _mentions(plain: str, patterns: dict[str, str]) -> Iterator[tuple[str, bool]]:
    """What `patterns` stand for where they are found, and whether it is denied there. Longer ones go first, and a
    place is found once: "deep scratch" is no scratch, "不合格" is a denied "合格"."""
    taken = [False] * len(plain)
    found = [(match, means) for pattern, means in patterns.items() for match in re.finditer(pattern, plain)]
    for match, means in sorted(found, key=lambda one: (one[0].start() - one[0].end(), one[0].start())):
        if any(taken[match.start() : match.end()]):
            continue
        taken[match.start() : match.end()] = [True] * (match.end() - match.start())
        clause = _CLAUSE.split(plain[: match.start()])[-1]
        yield means, bool(_DENIED.search(clause) or _DENIED_BEHIND.match(plain, match.end()))
