"""What artifacts are called, and how they point at runs.

A link needs the dashboard's address: PREFECT_UI_URL, or else PREFECT_API_URL without its /api. Without either
there is no dashboard that would last, and a run is shown by its id.
"""

from __future__ import annotations

import hashlib
import re

from prefect.utilities.urls import url_for

_LONGEST_KEY = 100


def artifact_key(*words: str) -> str:
    """A key as Prefect takes it, of lower-case letters, digits and dashes.

    Artifacts with one key are versions of one thing, so names that differ in more than their case get keys
    that differ: what a key cannot say is told apart by some digits of the name's digest.
    """
    said = "-".join(words).lower()
    key = re.sub(r"[^a-z0-9]+", "-", said).strip("-")[:_LONGEST_KEY]
    return key if key == said else f"{key}-{hashlib.sha256(said.encode()).hexdigest()[:6]}".strip("-")


def run_url(flow_run_id: str) -> str:
    """The flow run's page in the dashboard; its id where no dashboard is known."""
    return url_for("flow-run", flow_run_id) or flow_run_id


def run_link(flow_run_id: str, text: str) -> str:
    """Markdown that leads to the flow run's page; `text` is Markdown already.

    Where no dashboard is known the run's id follows the text.
    """
    url = url_for("flow-run", flow_run_id)
    return f"[{text}]({url})" if url else f"{text} {flow_run_id}"
