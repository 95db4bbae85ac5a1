"""What a generated sentence may say beside a decision: each rule from both sides, and text nobody should see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.runtime.grounding import MAX_CHARS, Dropped, Facts, judge, tidy

DEFECTS = {"good": False, "scratch": True, "deep scratch": True, "edge_chip": True}
CHINESE = {"正常": False, "划痕": True, "崩边": True}


def dropped(text: str, verdict: str, name: str, *, language: str = "en", finished: bool = True) -> Dropped | None:
    defects = CHINESE if name in CHINESE else DEFECTS
    facts = Facts(verdict, name, defects)  # type: ignore[arg-type]
    judged = judge(text, facts, language=language, finished=finished)  # type: ignore[arg-type]
    assert (judged.text is None) == (judged.dropped is not None)
    return judged.dropped


@pytest.mark.parametrize(
    ("text", "verdict", "name"),
    [
        ("A scratch runs across the plate.", "reject", "scratch"),
        ("There are several scratches on the left.", "reject", "scratch"),
        ("A deep scratch crosses the middle.", "reject", "deep scratch"),
        ("The edge chip is at the upper left.", "reject", "edge_chip"),
        ("The part was rejected for a scratch, not an edge chip.", "reject", "scratch"),
        ("The part does not pass because of a scratch.", "reject", "scratch"),
        ("No scratch or edge chip is visible.", "pass", "good"),
        ("The part is good and free of defects.", "pass", "good"),
        ("A clean, undamaged surface without flaws.", "pass", "good"),
        ("A thin bright line, perhaps a scratch.", "unsure", "scratch"),
        ("产品不合格，左上角有一道划痕。", "reject", "划痕"),
        ("表面完好，没有划痕。", "pass", "正常"),
    ],
)
def test_words_that_agree_stay(text: str, verdict: str, name: str) -> None:
    assert dropped(text, verdict, name, language="zh" if name in CHINESE else "en") is None


@pytest.mark.parametrize(
    ("text", "verdict", "name", "why"),
    [
        ("An edge chip is on the left side.", "reject", "scratch", Dropped.OTHER_CLASS),
        ("An Edge-Chip is on the left side.", "reject", "scratch", Dropped.OTHER_CLASS),
        ("A deep scratch crosses the middle.", "reject", "scratch", Dropped.OTHER_CLASS),
        ("A scratch crosses the middle.", "reject", "deep scratch", Dropped.OTHER_CLASS),
        ("There is no scratch to be seen.", "reject", "scratch", Dropped.OTHER_CLASS),
        ("There is no sign of any scratch here.", "reject", "scratch", Dropped.OTHER_CLASS),
        ("The part is free of any obvious visible scratch.", "reject", "scratch", Dropped.OTHER_CLASS),
        ("The plate is scratch-free and smooth.", "reject", "scratch", Dropped.OTHER_CLASS),
        ("This plate lacks a scratch.", "reject", "scratch", Dropped.OTHER_CLASS),
        ("On this plate a scratch is absent.", "reject", "scratch", Dropped.OTHER_CLASS),
        ("表面没有任何明显的划痕缺陷。", "reject", "划痕", Dropped.OTHER_CLASS),
        ("The surface shows a scratch.", "pass", "good", Dropped.OTHER_CLASS),
        ("The part passes the inspection.", "reject", "scratch", Dropped.OTHER_VERDICT),
        ("The part was not rejected today.", "reject", "scratch", Dropped.OTHER_VERDICT),
        ("The part should be rejected now.", "pass", "good", Dropped.OTHER_VERDICT),
        ("The part does not pass here.", "pass", "good", Dropped.OTHER_VERDICT),
        ("The part should be rejected now.", "unsure", "scratch", Dropped.OTHER_VERDICT),
        ("The part can be accepted as is.", "unsure", "scratch", Dropped.OTHER_VERDICT),
        ("The surface is intact and clean.", "reject", "scratch", Dropped.OTHER_CONDITION),
        ("The surface is defect-free and clean.", "reject", "scratch", Dropped.OTHER_CONDITION),
        ("The surface has no visible defects.", "reject", "scratch", Dropped.OTHER_CONDITION),
        ("The surface is clearly damaged there.", "pass", "good", Dropped.OTHER_CONDITION),
        ("左侧可见崩边。", "reject", "划痕", Dropped.OTHER_CLASS),
        ("左侧未见划痕。", "reject", "划痕", Dropped.OTHER_CLASS),
        ("该产品合格，可以放行。", "reject", "划痕", Dropped.OTHER_VERDICT),
        ("该产品不合格。", "pass", "正常", Dropped.OTHER_VERDICT),
        ("表面完好，很干净。", "reject", "划痕", Dropped.OTHER_CONDITION),
    ],
)
def test_words_against_the_decision_are_dropped(text: str, verdict: str, name: str, why: Dropped) -> None:
    assert dropped(text, verdict, name, language="zh" if name in CHINESE else "en") is why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", Dropped.EMPTY),
        (" \n\t ", Dropped.EMPTY),
        ("\u202e\u200b", Dropped.EMPTY),
        ("User: what else is there?", Dropped.EMPTY),
        ("... !!! ???", Dropped.EMPTY),
        ("12 34 56 78", Dropped.GARBLED),
        ("scratch", Dropped.GARBLED),
        ("the the the the plate", Dropped.GARBLED),
        ("left side left side left side left side left side", Dropped.GARBLED),
        ("a scratch \ufffd\ufffd on the plate", Dropped.GARBLED),
        ("{} [] a == b | c ;; d %% $$ ##", Dropped.GARBLED),
        ("左上角有一道划痕", Dropped.OTHER_LANGUAGE),
    ],
)
def test_what_is_no_sentence_is_dropped(text: str, why: Dropped) -> None:
    assert dropped(text, "reject", "scratch") is why


def test_a_class_that_has_no_letters_is_never_read_into_a_sentence() -> None:
    facts = Facts("reject", "c++", {"-": False, "c++": True, "(": True})
    assert judge("A line on the left.", facts, language="en", finished=True).dropped is None
    assert judge("There is no c++ here.", facts, language="en", finished=True).dropped is Dropped.OTHER_CLASS


def test_an_english_answer_to_a_chinese_question_is_dropped() -> None:
    assert dropped("A line on the left.", "reject", "划痕", language="zh") is Dropped.OTHER_LANGUAGE


def test_a_sentence_that_was_cut_off_keeps_what_is_whole() -> None:
    assert tidy("A line is 1.5 mm long. It is on the", finished=False) == "A line is 1.5 mm long."
    assert tidy("左侧有一道划痕。它从", finished=False) == "左侧有一道划痕。"
    assert tidy("A line is on the", finished=False) is None
    assert dropped("A line is on the", "reject", "scratch", finished=False) is Dropped.UNFINISHED
    assert tidy("A line is on the left", finished=True) == "A line is on the left"


def test_only_the_first_turn_counts() -> None:
    assert tidy(" A line on the left.\n\nUser: and now?", finished=True) == "A line on the left."
    assert tidy("A line on the left.<｜end▁of▁sentence｜>more", finished=True) == "A line on the left."


def test_a_page_long_text_is_cut_at_a_sentence() -> None:
    text = tidy("The line is bright. " * 100, finished=True)
    assert text is not None
    assert len(text) <= MAX_CHARS
    assert text.endswith("bright.")
    assert tidy("word " * 500, finished=True) is None


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_reason_has_words(language: str) -> None:
    said = {one.words(language) for one in Dropped}  # type: ignore[arg-type]
    assert len(said) == len(Dropped)


@given(st.text(), st.booleans(), st.sampled_from(["pass", "reject", "unsure"]), st.sampled_from(sorted(DEFECTS)))
def test_nothing_that_is_shown_can_harm_a_page(text: str, finished: bool, verdict: str, name: str) -> None:
    judged = judge(text, Facts(verdict, name, DEFECTS), language="en", finished=finished)  # type: ignore[arg-type]
    if judged.text is not None:
        assert 0 < len(judged.text) <= MAX_CHARS
        assert judged.text.isprintable()
        assert "\n" not in judged.text
