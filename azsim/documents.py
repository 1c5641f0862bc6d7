"""Small JSON documents by kind and key, durable in one SQLite file.

Everything of the simulation that is not page data lives here: resources, operations, accounts,
containers, blobs, grants, faults. Values are copied in and out, so a caller never shares state.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Document = dict[str, Any]

_LAST = chr(0x10FFFF)
"""Sorts behind everything that a key holds."""


class Documents:
    """A dictionary of dictionaries that survives a restart. Safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # A simulation killed by SIGKILL keeps its state (the kernel has it); a power cut may lose it.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS documents (kind TEXT, key TEXT, body TEXT, PRIMARY KEY (kind, key))"
        )

    def get(self, kind: str, key: str) -> Document | None:
        with self._lock:
            row = self._db.execute(
                "SELECT body FROM documents WHERE kind = ? AND key = ?", (kind, key)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, kind: str, key: str, body: Document) -> None:
        with self._lock:
            self._db.execute(
                "INSERT INTO documents VALUES (?, ?, ?)"
                " ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
                (kind, key, json.dumps(body)),
            )

    def delete(self, kind: str, key: str) -> bool:
        """Forget one document; False when there was none."""
        with self._lock:
            return (
                self._db.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key)).rowcount > 0
            )

    def items(
        self, kind: str, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> Iterator[tuple[str, Document]]:
        """All documents of a kind whose key starts with `prefix`, in key order, as of the call; only those
        whose key comes `after` another, and no more than `limit`."""
        with self._lock:
            rows = self._db.execute(
                "SELECT key, body FROM documents"
                " WHERE kind = ? AND key >= ? AND key < ? AND key > ? ORDER BY key LIMIT ?",
                (kind, prefix, prefix + _LAST, after, -1 if limit is None else limit),
            ).fetchall()
        for key, body in rows:
            yield key, json.loads(body)

    def close(self) -> None:
        with self._lock:
            self._db.close()
