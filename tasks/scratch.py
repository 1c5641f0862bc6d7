"""Scratch space: a folder that bears its run's name, for others to remove when the process is gone."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path


def make_scratch(flow_run: str) -> Path:
    """A new folder for this run's temporary files, on this machine."""
    return Path(tempfile.mkdtemp(prefix=_prefix(flow_run)))


def remove_scratch(flow_run: str) -> None:
    """Remove every folder that the run has left on this machine."""
    for left in Path(tempfile.gettempdir()).glob(f"{_prefix(flow_run)}*"):
        shutil.rmtree(left, ignore_errors=True)


def _prefix(flow_run: str) -> str:
    return f"vsa-{flow_run}-"
