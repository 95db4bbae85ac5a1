"""Keeps the catalogues in step with the templates: ``python -m cloud.dashboard.catalogue`` after a string changed.

New strings are added, vanished ones dropped, English is its own translation. What is left untranslated or has other
fields than its source is printed, and is an error in the tests.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from cloud.dashboard.i18n import LOCALES, catalogue_path

PACKAGE = Path(__file__).parent
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]
OPTIONS = {"templates/**.html": {"trimmed": "true", "silent": "false"}}
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "N_": None, "say": None, "say_n": (1, 2)}
_FIELD = re.compile(r"%\((\w+)\)[sd]")


def extract() -> Catalog:
    """Every string of the templates and of the Python files, with where it stands."""
    catalogue = Catalog(project="edgeloop", version="1", charset="utf-8", fuzzy=False)
    found = extract_from_dir(PACKAGE, method_map=METHODS, options_map=OPTIONS, keywords=KEYWORDS)
    for filename, _line, message, comments, context in found:
        catalogue.add(message, locations=[(Path(filename).as_posix(), 0)], auto_comments=comments, context=context)
    return catalogue


def load(language: str) -> Catalog:
    """A language's catalogue as it is on disk, or a new one."""
    path = catalogue_path(language)
    if not path.exists():
        return Catalog(locale=language, project="edgeloop", version="1", charset="utf-8", fuzzy=False)
    with path.open("rb") as file:
        return read_po(file, locale=language)


def gaps(language: str) -> list[str]:
    """What is wrong with a catalogue, one sentence each; empty when it is whole."""
    have = {_key(message): message for message in load(language) if message.id}
    want = {_key(message) for message in extract() if message.id}
    problems = [f"{language}: not in the catalogue: {key!r}" for key in sorted(want - have.keys())]
    problems += [f"{language}: no longer used: {key!r}" for key in sorted(have.keys() - want)]
    return problems + [f"{language}: {fault}" for key in sorted(want & have.keys()) for fault in _faults(have[key])]


def _key(message: Message) -> str:
    return message.id if isinstance(message.id, str) else message.id[0]


def _faults(message: Message) -> Iterator[str]:
    sources = (message.id,) if isinstance(message.id, str) else message.id
    forms = [message.string] if isinstance(message.string, str) else [*(message.string or ("",))]
    allowed = {field for source in sources for field in _FIELD.findall(source)}
    for form in forms:
        if not form:
            yield f"not translated: {_key(message)!r}"
        elif set(_FIELD.findall(form)) - allowed or (len(sources) == 1 and set(_FIELD.findall(form)) != allowed):
            yield f"other fields than its source: {_key(message)!r}"
    if message.fuzzy:
        yield f"guessed, not translated: {_key(message)!r}"


def update(language: str) -> None:
    """Rewrite a catalogue: translations kept, strings as `extract` finds them."""
    catalogue = load(language)
    catalogue.update(extract(), no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    for message in catalogue:
        if language == "en" and message.id:
            message.string = message.id
    path = catalogue_path(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalogue, width=120, sort_output=True, include_lineno=False)


def main() -> int:
    """Update all catalogues; 1 when something is still untranslated."""
    for language in LOCALES:
        update(language)
    problems = [problem for language in LOCALES for problem in gaps(language)]
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
