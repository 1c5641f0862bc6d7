from __future__ import annotations

from tests.engine.conftest import azure, control, world

__all__ = ["azure", "control", "world"]
