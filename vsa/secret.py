"""A value that must not be seen: account keys, client secrets, SAS URLs."""

from __future__ import annotations

from typing import Any


class Secret:
    """Text that shows itself only when asked by name; it cannot be printed, pickled or put into JSON."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not to be serialised")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)
