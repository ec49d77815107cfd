"""Words for messages: the known word that a mistyped one most likely means, lists, numbers of things."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The closest of the known words, case ignored; None when nothing is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.5)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy: the closest known word if one is close, else all of them."""
    words = list(known)
    closest = nearest(word, words)
    return f"did you mean {closest}?" if closest else f"known: {listing(words)}"


def listing(words: Iterable[str], limit: int = 20) -> str:
    """Words joined by commas, at most `limit` of them: "a, b, c and 7 more"; "none" for no words."""
    every = list(words)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more if every else "none"


def counted(count: int, what: str) -> str:
    """ "1 input", "2 inputs"."""
    return f"{count} {what}" + "s" * (count != 1)
