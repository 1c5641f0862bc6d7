"""Results as they are kept: one JSON document, written anew after every round."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.image import Images
from bench.measures import Row
from bench.peers import Peer

_DOCUMENT = "results.json"


@dataclass
class Round:
    """One round that has ended: figures by key of the measure, and what failed, in words."""

    began: str
    load: float
    """The machine's load average of the minute before."""
    measures: dict[str, Row] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Results:
    """Everything of a run. `about` says on what, with what, and on which image."""

    about: dict[str, Any]
    missing: dict[str, str] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """All or nothing: an interruption leaves the rounds before."""
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{_DOCUMENT}"
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n")
        temporary.replace(folder / _DOCUMENT)

    @classmethod
    def read(cls, folder: Path) -> Results | None:
        """What is there; None if nothing is."""
        try:
            found = json.loads((folder / _DOCUMENT).read_text())
        except OSError:
            return None
        return cls(found["about"], found["missing"], [Round(**item) for item in found["rounds"]])

    @property
    def changed(self) -> Mapping[str, int]:
        """Bytes that differ from the first version, by version."""
        found: Mapping[str, int] = self.about["image"]["changed"]
        return found


def about(images: Images, peers: Iterable[Peer], checkout: Path) -> dict[str, Any]:
    """The machine, the tools and the image, as far as figures depend on them."""
    return {
        "commit": _said(["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "peers": {peer.name: _said(peer.version_command()) for peer in peers if peer.program},
        "image": {
            "size": images.size,
            "allocated": images.allocated,
            "sha256": images.first.sha256,
            "changed": {percent: version.changed_bytes for percent, version in images.changed.items()},
        },
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def _said(command: Iterable[str]) -> str:
    """The line of a tool's answer that tells its version; empty if it gives none."""
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    except OSError:
        return ""
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Version:")), lines[0] if lines else "")
