"""What Prefect shows of a block in its form, made once."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

_made: dict[tuple[Any, ...], dict[str, Any]] = {}


class SchemaOnce:
    """Before `Block` among the bases of a block: its schema is made once for each process.

    Prefect asks for it anew for every field of every value that it saves: a subclient and the blocks that it
    refers to took more than two seconds of a processor.
    """

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What Prefect makes of the class; the caller may change it."""
        asked = (cls, args, tuple(sorted(kwargs.items())))
        if asked not in _made:
            _made[asked] = super().model_json_schema(*args, **kwargs)  # type: ignore[misc]
        return deepcopy(_made[asked])
