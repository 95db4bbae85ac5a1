"""Both languages are whole, and nothing a person reads bypasses them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog

from cloud.dashboard import catalogue, i18n, sources, words
from cloud.dashboard.i18n import LOCALES, Speech, choose
from cloud.gate.rules import RULES

TEMPLATES = sorted((catalogue.PACKAGE / "templates").glob("*.html"))


@pytest.mark.parametrize("language", LOCALES)
def test_the_catalogue_is_whole(language: str) -> None:
    assert catalogue.gaps(language) == []


def test_a_missing_translation_and_a_wrong_field_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Catalog(locale="zh")
    broken.add("Plant", "")
    broken.add("release %(number)s", "版本 %(numer)s")
    broken.add("Nobody says this", "没人说")
    monkeypatch.setattr(catalogue, "load", lambda _: broken)
    found = "\n".join(catalogue.gaps("zh"))
    assert "not translated: 'Plant'" in found
    assert "other fields than its source: 'release %(number)s'" in found
    assert "no longer used: 'Nobody says this'" in found
    assert "not in the catalogue: 'Fleet'" in found


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_no_template_has_text_outside_say(template: Path) -> None:
    """Literal letters between tags would stay English on a Chinese page."""
    text = re.sub(r"\{% block main_class %\}\w*", "", template.read_text(encoding="utf-8"))
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", text, flags=re.S)
    text = re.sub(r"<(svg|kbd|code)\b.*?</\1>", "", text, flags=re.S)
    visible = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    visible = re.sub(r"\b(edgeloop|ms)\b", "", visible)
    assert re.findall(r"[^\W\d_]{2,}", visible) == []


def test_every_word_of_the_tables_is_translated() -> None:
    chinese = Speech("zh")
    for name in dir(words):
        table = getattr(words, name)
        if name.isupper() and isinstance(table, dict):
            assert all(words.word(chinese, table, code) != table[code] for code in table), name


def test_every_rule_of_the_gate_has_a_title_in_both_languages() -> None:
    for name in [*(rule.name for rule in RULES), "files"]:
        titles = [words.word(Speech(language), sources.RULES, name) for language in LOCALES]
        assert name not in titles
        assert len(set(titles)) == len(LOCALES)


def test_a_code_nobody_listed_is_shown_as_it_is() -> None:
    assert words.word(Speech("zh"), words.UPDATE_STATES, "hovering") == "hovering"
    assert words.word(Speech("zh"), words.UPDATE_STATES, None) == "–"


@pytest.mark.parametrize(
    ("cookie", "header", "language"),
    [
        (None, None, "en"),
        ("zh", "en", "zh"),
        ("xx", "zh-TW", "zh"),
        (None, "de-DE, zh;q=0.4, en;q=0.9", "en"),
        (None, "zh;q=0, en", "en"),
        (None, "zh;q=abc", "en"),
        (None, ",;q=,,", "en"),
        (None, "*", "en"),
    ],
)
def test_choice_of_language(cookie: str | None, header: str | None, language: str) -> None:
    assert choose(cookie, header) == language


def test_plurals_follow_the_language() -> None:
    assert [Speech("en").say_n("%(n)s box", "%(n)s boxes", n) for n in (0, 1, 2)] == ["0 boxes", "1 box", "2 boxes"]
    assert Speech("zh").say_n("%(n)s box", "%(n)s boxes", 1) == "1 台设备"


def test_numbers_and_lengths_of_time() -> None:
    english, chinese = Speech("en"), Speech("zh")
    assert (english.number(12345.678, 1), english.percent(0.8949), english.percent(None)) == ("12,345.7", "89.5%", "–")
    assert [english.size(n) for n in (0, 999, 1500, 287_000_000, None)] == ["0 B", "999 B", "1.5 kB", "287 MB", "–"]
    assert [chinese.duration(s) for s in (5, 600, 8000, 500_000)] == ["5 秒", "10 分钟", "2 小时", "6 天"]
    assert (english.ago(None), chinese.ago(4)) == ("never", "4 秒前")


def test_a_catalogue_that_was_never_written_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(i18n, "FOLDER", tmp_path)
    assert len(catalogue.load("zh")) == 0
    catalogue.update("en")
    assert catalogue.gaps("en") == []
    assert any("not in the catalogue" in gap for gap in catalogue.gaps("zh"))
