"""What is said of bad input."""

from __future__ import annotations

from collections.abc import Collection


class InputError(ValueError):
    """Bad input from outside: one line that names the file, row or field and what was expected.

    The command line prints the line and exits with code 2.
    """


def refuse_unknown(kind: str, name: str, known: Collection[str]) -> None:
    """Raise :class:`InputError` that lists the known names unless ``name`` is one of them."""
    if name not in known:
        raise InputError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}")
