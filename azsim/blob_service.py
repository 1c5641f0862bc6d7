"""The blob service of the simulation: accounts, page and block blobs, managed disks by SAS URL.

Served path-style as `/{account}/{container}/{blob}`. All times are the simulation's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import logging
import secrets
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from azsim import blob_xml
from azsim.blob_auth import authorize
from azsim.blob_call import Answer, Call
from azsim.blob_disks import DiskAccesses, is_disk_account
from azsim.blob_errors import BlobError
from azsim.blob_model import PAGE_BLOB, Account, Blob, BlobSettings
from azsim.blob_operations import Operations
from azsim.blob_snapshots import take as take_snapshot
from azsim.blob_state import BlobState
from azsim.blob_time import Ticker, etag, http_date, snapshot_id
from azsim.clock import Clock
from azsim.documents import Documents
from azsim.image_files import load_image_file, size_in_pages
from azsim.pages import PageError, PageStore, UnknownImage
from azsim.vhd import FOOTER_BYTES, fixed_footer

_log = logging.getLogger(__name__)
_METHODS = ["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH"]
_SERVER = "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0"
_NOT_SIGNED_IN = 'Bearer authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize"'


def _no_bearer(_: str) -> bool:
    return False


class BlobService:
    """Storage accounts and managed-disk access. Thread-safe; durable in `pages` and `documents`.

    `settings` may be replaced while it runs. `bearer_is_valid` judges access tokens of Entra ID.
    """

    def __init__(
        self,
        pages: PageStore,
        documents: Documents,
        clock: Clock,
        *,
        settings: BlobSettings | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        bearer_is_valid: Callable[[str], bool] = _no_bearer,
    ) -> None:
        self._lock = threading.RLock()
        self._random_bytes = random_bytes
        self._bearer_is_valid = bearer_is_valid
        self._state = BlobState(
            pages, documents, clock, Ticker(clock), random_bytes, settings or BlobSettings()
        )
        self._disks = DiskAccesses(pages, documents, clock, random_bytes)
        self._operations = Operations(self._state, self._disks)
        self._throttles: dict[str, float] = {}

    @property
    def settings(self) -> BlobSettings:
        return self._state.settings

    @settings.setter
    def settings(self, settings: BlobSettings) -> None:
        self._state.settings = settings

    def routes(self) -> list[Route]:
        """Catch everything of one to many segments: routes of other services must come first."""
        paths = ("/{account}", "/{account}/", "/{account}/{container}", "/{account}/{container}/{blob:path}")
        return [Route(path, self._serve, methods=_METHODS) for path in paths]

    def create_account(self, name: str, *, kind: str, sku: str) -> None:
        """A storage account with two random keys; premium when the SKU's name starts so."""
        with self._lock:
            self._state.add_account(name, kind, sku)

    def delete_account(self, name: str) -> None:
        """Delete an account with all its containers; BlobError when there is none."""
        with self._lock:
            self._state.account(name)
            self._state.remove_account(name)

    def account_keys(self, name: str) -> list[str]:
        """key1 and key2, base64."""
        return list(self._account(name).keys)

    def regenerate_key(self, name: str, key_name: str) -> list[str]:
        """Replace "key1" or "key2": what was signed with it is refused from now on."""
        with self._lock:
            self._state.replace_key(name, ("key1", "key2").index(key_name))
        return self.account_keys(name)

    def close_account(self, name: str, *, closed: bool) -> None:
        """Let nobody in, whatever right a request has, or everybody again."""
        with self._lock:
            self._state.put_account(dataclasses.replace(self._state.account(name), is_closed=closed))

    def open_disk_access(
        self, ref: str, *, disk_size: int, expires_at: dt.datetime, group: str, write: bool = False
    ) -> str:
        """Path and query of a SAS URL for a managed disk or snapshot.

        For reading, `ref` is a version or image of `disk_size` bytes; what is read is its bytes and a
        512-byte VHD footer. For writing, `ref` is an image of `disk_size` + 512 bytes, the footer being
        the caller's to write; `vhd.check_fixed_footer` judges it. Two snapshots can be compared while
        both URLs are live and of one `group`; use another group where Azure refuses to compare.
        """
        with self._lock:
            return self._disks.open(ref, disk_size=disk_size, expires_at=expires_at, group=group, write=write)

    def close_disk_access(self, path_and_query: str) -> None:
        """Revoke a SAS URL; later requests get 403 AuthenticationFailed. Closing twice is no error."""
        with self._lock:
            self._disks.close(path_and_query)

    def put_page_blob_from_image(
        self, account: str, container: str, blob: str, path: Path, *, with_footer: bool = True
    ) -> None:
        """Make an unmanaged VHD of an image file, without its holes; the container is made if absent."""
        data_size = size_in_pages(path)
        pages = self._state.pages
        image = pages.create(data_size + (FOOTER_BYTES if with_footer else 0))
        load_image_file(pages, image, path)
        if with_footer:
            disk_id = uuid.UUID(bytes=self._random_bytes(16), version=4)
            pages.write(image, data_size, fixed_footer(data_size, disk_id, self._state.clock.now()))
        self._put_page_blob(account, container, blob, image, {})

    def leave_page_blob(self, account: str, container: str, blob: str, metadata: dict[str, str]) -> None:
        """An empty page blob of one page, as somebody may have left it; the container is made if absent."""
        self._put_page_blob(account, container, blob, self._state.pages.create(FOOTER_BYTES), metadata)

    def leave_snapshot(self, account: str, container: str, blob: str, metadata: dict[str, str]) -> str:
        """A snapshot of a blob without regard to how fast Azure would have taken it; returns its moment."""
        with self._lock:
            taken = take_snapshot(
                self._state, self._found(account, container, blob), self._state.ticker.next(), metadata
            )
        return taken.snapshot or ""

    def erase(self, account: str, container: str, blob: str, snapshot: str | None = None) -> None:
        """Take away a blob or a snapshot of it, "newest" for the last one, whatever would keep it."""
        with self._lock:
            found = self._found(account, container, blob)
            if snapshot:
                taken = self._state.snapshots(found)
                found = taken[-1] if snapshot == "newest" else self._found(account, container, blob, snapshot)
            self._state.erase(found)

    def _put_page_blob(
        self, account: str, container: str, blob: str, image: str, metadata: dict[str, str]
    ) -> None:
        with self._lock:
            self._state.account(account)
            if container not in dict(self._state.containers(account)):
                self._state.add_container(account, container)
            ticks = self._state.ticker.next()
            self._state.add(
                Blob(
                    account=account,
                    container=container,
                    name=blob,
                    type=PAGE_BLOB,
                    ref=image,
                    length=self._state.pages.size(image),
                    created_at=ticks,
                    modified_at=ticks,
                    etag=etag(ticks),
                    metadata=metadata,
                )
            )

    def blob_ref(self, account: str, container: str, blob: str) -> str:
        """The page image of a blob, for writes by its guest; BlobError when there is none."""
        with self._lock:
            return self._found(account, container, blob).ref

    def resize_page_blob(self, account: str, container: str, blob: str, size: int) -> None:
        """Grow or shrink a page blob to `size` bytes, a multiple of 512, footer included."""
        with self._lock:
            found = self._found(account, container, blob)
            self._state.pages.resize(found.ref, size)
            self._state.touch(dataclasses.replace(found, length=size))

    def _found(self, account: str, container: str, blob: str, snapshot: str | None = None) -> Blob:
        found = self._state.find(account, container, blob, snapshot)
        if found is None:
            raise BlobError("BlobNotFound")
        return found

    def _account(self, name: str) -> Account:
        with self._lock:
            return self._state.account(name)

    async def _serve(self, request: Request) -> Response:
        call = await _call_of(request)
        request_id = str(uuid.UUID(bytes=self._random_bytes(16), version=4))
        try:
            answer = await run_in_threadpool(self._answer, call)
        except BlobError as refusal:
            answer = self._refusal(refusal, request_id)
        common = {
            "server": _SERVER,
            "date": http_date(self._state.now()),
            "x-ms-request-id": request_id,
            "x-ms-version": call.version,
        }
        if "x-ms-client-request-id" in call.headers:
            common["x-ms-client-request-id"] = call.headers["x-ms-client-request-id"]
        headers = common | answer.headers
        if call.method == "HEAD":
            return Response(status_code=answer.status, headers=headers)
        if answer.pieces is not None:
            return StreamingResponse(self._paced(answer), answer.status, headers)
        return Response(answer.body, answer.status, headers)

    def _answer(self, call: Call) -> Answer:
        with self._lock:
            try:
                if is_disk_account(call.account):
                    return self._operations.on_disk(call)
                account = self._state.account(call.account)
                if account.is_closed:
                    raise BlobError("AuthorizationFailure")
                operation = self._operations.find(call)
                now = self._state.clock.now()
                letters = authorize(call, account, operation.need, now, self._bearer_is_valid)
                return operation.run(call.allowing(letters))
            except UnknownImage as error:
                # The disk or snapshot behind a grant was deleted while the grant was open.
                raise BlobError("BlobNotFound") from error
            except PageError as error:
                _log.warning("%s %s: %s", call.method, call.raw_path, error)
                raise BlobError("InvalidPageRange") from error

    def _refusal(self, refusal: BlobError, request_id: str) -> Answer:
        headers = {"x-ms-error-code": refusal.code, "content-type": "application/xml"}
        if refusal.status == 401:
            headers["www-authenticate"] = _NOT_SIGNED_IN
        body = blob_xml.error(refusal, request_id, snapshot_id(self._state.now()))
        return Answer(refusal.status, headers, b"" if refusal.status == 304 else body)

    async def _paced(self, answer: Answer) -> AsyncIterator[bytes]:
        """Send a long body as it is read, no faster than its bandwidth, shared by all its readers."""
        assert answer.pieces is not None
        while (piece := await run_in_threadpool(_next_piece, answer.pieces)) is not None:
            if answer.bytes_per_second is not None:
                await asyncio.sleep(self._delay(answer.throttle_key, len(piece) / answer.bytes_per_second))
            yield piece

    def _delay(self, key: str, seconds: float) -> float:
        """Seconds to wait so that transfers under one key follow each other, each taking `seconds`."""
        now = asyncio.get_running_loop().time()
        until = max(now, self._throttles.get(key, now)) + seconds
        self._throttles[key] = until
        return until - now


async def _call_of(request: Request) -> Call:
    parameters = request.path_params
    return Call(
        method=request.method,
        origin=f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}",
        raw_path=request.scope["raw_path"].decode("ascii"),
        raw_query=request.scope["query_string"].decode("ascii"),
        headers=dict(request.headers),
        body=await request.body(),
        account=parameters["account"],
        container=parameters.get("container", ""),
        name=parameters.get("blob", ""),
    )


def _next_piece(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)
