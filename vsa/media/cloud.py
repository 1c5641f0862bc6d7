"""A store in an Azure Blob container or an S3 bucket (docs/media-format.md, "Stores").

One request creates one object, with a condition that makes the service refuse an existing name. The
client library is kept from repeating it: a repeated create may report its own first success as a refusal.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore

from vsa.errors import MediaConflict, MediaDamaged, MediaUnusable, ObjectMissing, TryAgainLater, VsaError
from vsa.media import layout
from vsa.media.cloud_errors import FAILURES, Action, answer_in, asking, meaning
from vsa.media.scratch import joined
from vsa.media.store import Buffer
from vsa.ranges import MIB, ByteRange
from vsa.threads import Threads

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

PROBES = ".probe/"
"""Where writers try out the condition; no object name can begin with a dot."""

_PROBE_WRITERS = 8
_FORBIDDEN = 403
_UNSATISFIABLE = 416


@dataclass(frozen=True, slots=True)
class Service:
    """What one kind of cloud store differs in. `connect` makes a client; `largest` is in bytes."""

    location: str
    largest: int
    connect: Callable[[ClientConfig, RetryConfig], ObjectStore]
    plain_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for a store. A request may take `answer_seconds`, and longer by its bytes at the
    slowest speed that is still waited for; requests that only read are repeated up to `retries` times.
    """

    connect_seconds: float = 10.0
    answer_seconds: float = 60.0
    slowest_bytes_per_second: int = MIB
    retries: int = 4
    retry_seconds: float = 120.0
    idle_connections: int = 16
    idle_seconds: float = 10.0
    """A kept connection is closed before the service closes it: a create that meets the closing is lost."""

    def seconds_for(self, size: int) -> float:
        """For a request of so many bytes, in few steps: each step is a client with connections of its own."""
        seconds = self.answer_seconds
        while seconds < self.answer_seconds + size // self.slowest_bytes_per_second:
            seconds *= 2
        return seconds


class CloudStore:
    """Objects in a container or bucket, below a prefix; safe for many threads."""

    def __init__(
        self,
        service: Service,
        *,
        patience: Patience | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Contacts nobody yet."""
        self._service = service
        self._patience = patience or Patience()
        self._random = random
        self._reader = self._connect(self._patience.answer_seconds, retries=self._patience.retries)
        self._writers: dict[float, ObjectStore] = {}
        self._connecting = threading.Lock()

    @property
    def location(self) -> str:
        return self._service.location

    def create(self, name: str, parts: Sequence[Buffer]) -> None:
        layout.require_name(name)
        self._put(name, parts)

    def read(self, name: str, at: ByteRange | None = None, *, limit: int | None = None) -> bytes:
        layout.require_name(name)
        return self._read_whole(name, limit) if at is None else self._read_range(name, at)

    def size(self, name: str) -> int:
        layout.require_name(name)
        with self._asking(Action.READ, name):
            return obstore.head(self._reader, name)["size"]

    def folders(self, prefix: str) -> Iterator[str]:
        with self._asking(Action.LIST, prefix):
            found = obstore.list_with_delimiter(self._reader, prefix.rstrip("/") or None)
        yield from (folder.rstrip("/").rpartition("/")[2] for folder in found["common_prefixes"])

    def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
        for name in self._list(prefix, after):
            if name > after and not name.startswith("."):
                yield name

    def delete(self, name: str) -> None:
        layout.require_name(name)
        self._delete(name)

    def require_empty(self) -> None:
        """MediaConflict, saying what is there, unless nothing is; NoMedia if there is no such place."""
        found = next((name for name in self._list("") if not name.startswith(PROBES)), None)
        if found is not None:
            raise MediaConflict(
                f"{self.location} is not empty, it holds {found}: "
                "new media needs a prefix of its own, existing media is never made anew"
            )

    def prepare_for_writing(self) -> None:
        """Prove that an existing name is refused here, by many writers at once; MediaUnusable if it is not.

        The object that this needs is removed again where the credential allows it. It may stay: it is
        empty of meaning, and no object of the media.
        """
        name = f"{PROBES}{self._random(16).hex()}"
        try:
            with Threads(_PROBE_WRITERS) as writers:
                won = sum(writers.map(lambda _: self._try_put(name), range(_PROBE_WRITERS)))
            again = self._try_put(name)
        finally:
            with suppress(VsaError):
                self._delete(name)
        if won != 1 or again:
            raise MediaUnusable(
                f"{self.location}: {won} of {_PROBE_WRITERS} concurrent writers created the same object"
                f"{' and a later one did it again' if again else ''}; exactly one must win. "
                "This service does not keep If-None-Match: keep backup media on one that does"
            )

    def _try_put(self, name: str) -> bool:
        try:
            self._put(name, [self._random(16)])
        except MediaConflict:
            return False
        return True

    def _put(self, name: str, parts: Sequence[Buffer]) -> None:
        body = joined(parts)
        size = body.nbytes
        if size > self._service.largest:
            raise MediaUnusable(
                f"{self.location}: cannot store {name}: it has {size} bytes, and the service takes at most "
                f"{self._service.largest} in one request"
            )
        try:
            obstore.put(self._writer(size), name, body or b"", mode="create", use_multipart=False)
        except FAILURES as error:
            raise self._not_stored(error, name) from error

    def _not_stored(self, error: BaseException, name: str) -> VsaError:
        """What a refused create means.

        A credential that may create but not overwrite is refused for its rights where another would be
        for the condition; the object tells which it was.
        """
        failed = f"{self.location}: cannot store {name}"
        if answer_in(error).status == _FORBIDDEN and self._is_there(name):
            return MediaConflict(f"{failed}: it exists already")
        return meaning(error, Action.CREATE, failed)

    def _is_there(self, name: str) -> bool:
        with suppress(VsaError), self._asking(Action.READ, name):
            obstore.head(self._reader, name)
            return True
        return False

    def _read_whole(self, name: str, limit: int | None) -> bytes:
        with self._asking(Action.READ, name):
            answer = obstore.get(self._reader, name)
            size = answer.meta["size"]
            if limit is not None and size > limit:
                raise MediaDamaged(f"{self.location}: {name} has {size} bytes, at most {limit} were expected")
            data = answer.bytes().to_bytes()
        if len(data) != size:
            raise TryAgainLater(f"{self.location}: {name}: {len(data)} bytes came of {size}")
        return data

    def _read_range(self, name: str, at: ByteRange) -> bytes:
        data = self._answered_range(name, at) if at.length else b""
        if len(data) == at.length and data:
            return data
        if (size := self.size(name)) < at.end:
            raise MediaDamaged(
                f"{self.location}: {name} has {size} bytes, but bytes {at.offset} to {at.end} are needed"
            )
        if len(data) != at.length:
            raise TryAgainLater(f"{self.location}: {name}: {len(data)} bytes came of {at.length}")
        return data

    def _answered_range(self, name: str, at: ByteRange) -> bytes:
        """What the service sends for the range: nothing if the object ends before it begins."""
        try:
            return obstore.get_range(self._reader, name, start=at.offset, end=at.end).to_bytes()
        except FAILURES as error:
            said = meaning(error, Action.READ, f"{self.location}: cannot read {name}")
            if answer_in(error).status in (0, _UNSATISFIABLE) and not isinstance(said, TryAgainLater):
                # The service, or the library after a look at its answer, says that there is no such range.
                return b""
            raise said from error

    def _list(self, prefix: str, after: str = "") -> Iterator[str]:
        """All names that start with `prefix`; the library itself knows prefixes of whole parts only.

        A service that can begin behind `after` does.
        """
        with self._asking(Action.LIST, prefix):
            for batch in obstore.list(self._reader, prefix.rpartition("/")[0] or None, offset=after or None):
                yield from (found["path"] for found in batch if found["path"].startswith(prefix))

    def _delete(self, name: str) -> None:
        with suppress(ObjectMissing), self._asking(Action.DELETE, name):
            obstore.delete(self._reader, name)

    def _asking(self, action: Action, name: str) -> AbstractContextManager[None]:
        return asking(action, self.location, name)

    def _writer(self, size: int) -> ObjectStore:
        seconds = self._patience.seconds_for(size)
        with self._connecting:
            if seconds not in self._writers:
                self._writers[seconds] = self._connect(seconds, retries=0)
            return self._writers[seconds]

    def _connect(self, seconds: float, *, retries: int) -> ObjectStore:
        patience = self._patience
        client: ClientConfig = {
            "connect_timeout": timedelta(seconds=patience.connect_seconds),
            "timeout": timedelta(seconds=seconds),
            "pool_max_idle_per_host": str(patience.idle_connections),
            "pool_idle_timeout": timedelta(seconds=patience.idle_seconds),
            "allow_http": self._service.plain_http,
        }
        return self._service.connect(
            client, {"max_retries": retries, "retry_timeout": timedelta(seconds=patience.retry_seconds)}
        )
