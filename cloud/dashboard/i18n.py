"""Languages: which one a request gets, its catalogue, and numbers and times as that language writes them.

The source strings are English. Catalogues are gettext ``.po`` files read once per process by Babel; there is no
compile step to forget. The choice is the cookie, then Accept-Language, then English.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache
from gettext import NullTranslations, c2py
from pathlib import Path
from typing import Any

from babel import Locale
from babel.dates import format_datetime
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent

from cloud.clock import from_us

COOKIE = "edgeloop_language"
LOCALES: Mapping[str, str] = {"en": "English", "zh": "中文"}
FALLBACK = "en"
FOLDER = Path(__file__).parent / "locale"
DOMAIN = "dashboard"
_HTML_CODES = {"en": "en", "zh": "zh-Hans"}
_BABEL_CODES = {"en": "en_GB", "zh": "zh_Hans_CN"}


class Translations(NullTranslations):
    """gettext over a parsed catalogue. A string without a translation comes out in English."""

    def __init__(self, catalogue: Catalog) -> None:
        super().__init__()
        self._plural = c2py(catalogue.plural_expr)
        self._messages: dict[str, tuple[str, ...]] = {}
        for message in catalogue:
            identifier = message.id if isinstance(message.id, str) else message.id[0]
            forms = [message.string] if isinstance(message.string, str) else [*(message.string or ())]
            if identifier and forms and all(forms):
                self._messages[identifier] = tuple(forms)

    def gettext(self, message: str) -> str:
        return self._messages.get(message, (message,))[0]

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        forms = self._messages.get(msgid1)
        if forms is None:
            return msgid1 if n == 1 else msgid2
        return forms[min(int(self._plural(n)), len(forms) - 1)]


def catalogue_path(language: str) -> Path:
    """Where a language's catalogue lies."""
    return FOLDER / language / "LC_MESSAGES" / f"{DOMAIN}.po"


@cache
def translations(language: str) -> Translations:
    """The catalogue of one of `LOCALES`."""
    with catalogue_path(language).open("rb") as file:
        return Translations(read_po(file, locale=language))


def choose(cookie: str | None, accept_language: str | None) -> str:
    """The language of a request: cookie, then the header's order of preference, then English."""
    if cookie in LOCALES:
        return str(cookie)
    for wanted in _by_preference(accept_language or ""):
        primary = wanted.split("-")[0].lower()
        if primary in LOCALES:
            return primary
    return FALLBACK


def _by_preference(header: str) -> list[str]:
    """Tags of an Accept-Language header (RFC 9110, section 12.5.4), best first; unreadable weights count as 0."""
    ranked: list[tuple[float, int, str]] = []
    for place, item in enumerate(header[:1024].split(",")):
        tag, _, weight = item.strip().partition(";q=")
        try:
            quality = float(weight) if weight else 1.0
        except ValueError:
            quality = 0.0
        if tag and quality > 0:
            ranked.append((-quality, place, tag))
    return [tag for _, _, tag in sorted(ranked)]


@dataclass(frozen=True)
class Speech:
    """How one language writes words, numbers and times. `zone` None is the server's own time zone."""

    language: str
    zone: tzinfo | None = None

    @property
    def html(self) -> str:
        """The tag for ``<html lang>``."""
        return _HTML_CODES[self.language]

    @property
    def locale(self) -> Locale:
        return Locale.parse(_BABEL_CODES[self.language])

    def say(self, message: str, **values: Any) -> str:
        """Translate, then fill in ``%(name)s`` fields."""
        text = translations(self.language).gettext(message)
        return text % values if values else text

    def say_n(self, one: str, many: str, n: int, **values: Any) -> str:
        """Translate the form for `n`, then fill in ``%(n)s`` and the other fields."""
        return translations(self.language).ngettext(one, many, n) % {"n": self.number(n), **values}

    def number(self, value: float | None, digits: int = 0) -> str:
        if value is None:
            return "–"
        pattern = "#,##0" + ("." + "0" * digits if digits else "")
        return str(format_decimal(value, format=pattern, locale=self.locale))

    def percent(self, share: float | None, digits: int = 1) -> str:
        """A share of 0..1 as a percentage."""
        if share is None:
            return "–"
        pattern = "#,##0" + ("." + "0" * digits if digits else "") + "%"
        return str(format_percent(share, format=pattern, locale=self.locale))

    def money(self, amount: float, currency: str) -> str:
        return f"{self.number(amount)} {currency}"

    def size(self, count: int | None) -> str:
        """Bytes, in decimal units as disks and networks count."""
        if count is None:
            return "–"
        value = float(count)
        units = ["B", "kB", "MB", "GB", "TB"]
        while value >= 1000 and len(units) > 1:
            value, units = value / 1000, units[1:]
        unit = units[0]
        return f"{self.number(value, 0 if unit == 'B' or value >= 100 else 1)} {unit}"

    def moment(self, at_us: int) -> datetime:
        return from_us(at_us).astimezone(self.zone)

    def clock(self, at_us: int | None) -> str:
        """hh:mm:ss."""
        return "–" if at_us is None else f"{self.moment(at_us):%H:%M:%S}"

    def date_time(self, at_us: int | None) -> str:
        """Day, month and time with seconds."""
        if at_us is None:
            return "–"
        pattern = "M月d日 HH:mm:ss" if self.language == "zh" else "d MMM, HH:mm:ss"
        return str(format_datetime(self.moment(at_us), format=pattern, locale=self.locale))

    def duration(self, seconds: float | None) -> str:
        """A length of time in its largest sensible unit."""
        if seconds is None:
            return "–"
        if seconds < 120:
            return self.say("%(n)s s", n=self.number(max(0.0, seconds)))
        if seconds < 7200:
            return self.say("%(n)s min", n=self.number(seconds / 60))
        if seconds < 172_800:
            return self.say("%(n)s h", n=self.number(seconds / 3600))
        return self.say("%(n)s days", n=self.number(seconds / 86_400))

    def ago(self, seconds: float | None) -> str:
        if seconds is None:
            return self.say("never")
        return self.say("%(duration)s ago", duration=self.duration(seconds))
