"""The intents of runs: what each would create, recorded before it created it (docs/media-format.md)."""

from __future__ import annotations

from collections.abc import Iterator

from vsa.errors import MediaConflict, ObjectMissing
from vsa.media import documents, layout
from vsa.media.store import Store
from vsa.model import Intent


def record(store: Store, intent: Intent) -> None:
    """Repeating it is harmless; MediaConflict if another process used the run's id."""
    name, data = layout.intent(intent.run), documents.encode(intent)
    try:
        store.create(name, [data])
    except MediaConflict:
        if store.read(name, limit=layout.MAX_DOCUMENT_SIZE) != data:
            raise


def recorded(store: Store, run: str) -> Intent | None:
    """None if the run has no intent here; MediaDamaged if it cannot be trusted."""
    name = layout.intent(run)
    try:
        data = store.read(name, limit=layout.MAX_DOCUMENT_SIZE)
    except ObjectMissing:
        return None
    return documents.decode(data, Intent, f"{store.location}: {name}")


def runs(store: Store) -> Iterator[str]:
    """The ids of all runs that a listing shows; a convenience, it may miss some."""
    for name in store.folders(layout.RUNS):
        if layout.is_run(name):
            yield name
