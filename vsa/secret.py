"""Values that must not be seen: account keys, client secrets, SAS URLs, and whatever holds key bytes."""

from __future__ import annotations

from typing import Any


class Unseen:
    """Base of what holds secrets: it shows its name only, and cannot be copied, pickled or put into JSON."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not to be serialised")


class Secret(Unseen):
    """Text that shows itself only when asked by name."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)
