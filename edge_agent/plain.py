"""Foreign text made fit for a message: one printable line of at most 256 characters."""

from __future__ import annotations

MAX_CHARACTERS = 256


def plain(text: object) -> str:
    """`str(text)` without control, format and surrogate characters, cut to what `contracts.base.Text` takes."""
    line = " ".join(str(text).split())
    return "".join(character for character in line if character.isprintable())[:MAX_CHARACTERS]
