"""Operations that change a blob's bytes or properties: Put Blob, Put Page, Put Block, Set Properties."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from urllib.parse import unquote

from azsim.blob_call import (
    Answer,
    Call,
    Span,
    check_conditions,
    check_lease,
    check_md5,
    check_sequence_number,
    md5,
)
from azsim.blob_errors import BlobError, bad_header, bad_query
from azsim.blob_model import BLOCK_BLOB, PAGE_BLOB, UNTYPED, Blob
from azsim.blob_state import BlobState
from azsim.blob_time import etag, http_date
from azsim.pages import PAGE, PageStore

LARGEST_PAGE_BLOB = 8 << 40
LARGEST_PUT_PAGE = 4 << 20
_BLOCKS = "blob-block"
_BLOCK_IDS = re.compile(r"<(Latest|Committed|Uncommitted)>([^<]*)</")
_ENCRYPTED = {"x-ms-request-server-encrypted": "true"}


def changed(blob: Blob) -> dict[str, str]:
    """The headers that tell a caller the blob's new version."""
    return {"etag": f'"{blob.etag}"', "last-modified": http_date(blob.modified_at)}


def writable(state: BlobState, call: Call) -> Blob:
    """The blob of the call, with its conditions and lease checked for a change."""
    blob = state.find(call.account, call.container, call.name)
    if blob is None:
        raise BlobError("BlobNotFound")
    check_lease(call, blob, state.now())
    check_conditions(call, blob)
    if blob.is_pending:
        raise BlobError("PendingCopyOperation")
    return blob


def replaceable(state: BlobState, call: Call) -> Blob | None:
    """The blob that the call will replace as a whole, None when it creates one."""
    blob = state.find(call.account, call.container, call.name)
    check_conditions(call, blob)
    if blob is None:
        return None
    check_lease(call, blob, state.now())
    if blob.is_pending:
        raise BlobError("PendingCopyOperation")
    if not call.may_overwrite():
        raise BlobError("UnauthorizedBlobOverwrite")
    return blob


def put_blob(state: BlobState, call: Call) -> Answer:
    blob_type = call.headers.get("x-ms-blob-type")
    if blob_type not in (PAGE_BLOB, BLOCK_BLOB):
        raise bad_header("x-ms-blob-type", blob_type)
    if not state.account(call.account).supports(blob_type):
        raise BlobError("BlobTypeNotSupported")
    check_md5(call)
    if blob_type == PAGE_BLOB:
        return _put_page_blob(state, call)
    stored = store_blob(state, call, replaceable(state, call), BLOCK_BLOB, len(call.body))
    _fill(state.pages, stored.ref, call.body)
    digest = {"content-md5": md5(call.body)}
    stored = dataclasses.replace(stored, headers=digest | stored.headers)
    state.put(stored)
    return Answer(201, changed(stored) | digest | _ENCRYPTED)


def _put_page_blob(state: BlobState, call: Call) -> Answer:
    length = _page_blob_length(call)
    number = call.number("x-ms-blob-sequence-number", 0)
    stored = store_blob(state, call, replaceable(state, call), PAGE_BLOB, length)
    state.put(dataclasses.replace(stored, sequence_number=number))
    return Answer(201, changed(stored) | _ENCRYPTED)


def store_blob(state: BlobState, call: Call, before: Blob | None, blob_type: str, length: int) -> Blob:
    """A new blob in place of `before`: its pages empty, a new generation, nothing else kept but its lease."""
    size = -(-length // PAGE) * PAGE
    if before:
        state.pages.reset(before.ref, size)
    ticks = state.ticker.next()
    blob = Blob(
        account=call.account,
        container=call.container,
        name=call.name,
        type=blob_type,
        ref=before.ref if before else state.pages.create(size),
        length=length,
        created_at=ticks,
        modified_at=ticks,
        etag=etag(ticks),
        metadata=call.metadata(),
        headers=_stored_headers(call),
        tier=call.headers.get("x-ms-access-tier"),
        lease=before.lease if before else None,
        snapshotted_at=before.snapshotted_at if before else None,
    )
    state.add(blob)
    return blob


def put_page(state: BlobState, call: Call) -> Answer:
    blob = writable(state, call)
    if blob.type != PAGE_BLOB:
        raise BlobError("InvalidBlobType")
    check_sequence_number(call, blob)
    digest = write_pages(state.pages, blob.ref, blob.length, call)
    blob = state.touch(blob)
    headers = changed(blob) | {"x-ms-blob-sequence-number": str(blob.sequence_number)}
    return Answer(201, headers | ({"content-md5": digest} | _ENCRYPTED if digest else {}))


def write_pages(pages: PageStore, image: str, length: int, call: Call) -> str | None:
    """Write or clear the pages of a Put Page; the digest of what was written, None for a clear."""
    act = call.headers.get("x-ms-page-write", "").lower()
    span = _page_span(call, length)
    if act == "clear":
        if call.body:
            raise bad_header("content-length", str(len(call.body)))
        pages.clear(image, span.start, span.length)
        return None
    if act != "update":
        raise bad_header("x-ms-page-write", call.headers.get("x-ms-page-write"))
    if span.length > LARGEST_PUT_PAGE:
        raise BlobError("RequestBodyTooLarge")
    if len(call.body) != span.length:
        raise bad_header("content-length", str(len(call.body)))
    check_md5(call)
    pages.write(image, span.start, call.body)
    return md5(call.body)


def set_metadata(state: BlobState, call: Call) -> Answer:
    blob = state.touch(dataclasses.replace(writable(state, call), metadata=call.metadata()))
    return Answer(200, changed(blob) | _ENCRYPTED)


def set_properties(state: BlobState, call: Call) -> Answer:
    """Resize, set content headers, set the sequence number; headers not named are reset, as Azure does."""
    blob = writable(state, call)
    resizes = "x-ms-blob-content-length" in call.headers
    numbers = "x-ms-sequence-number-action" in call.headers
    if (resizes or numbers) and blob.type != PAGE_BLOB:
        raise BlobError("InvalidBlobType")
    if resizes:
        length = _page_blob_length(call)
        state.pages.resize(blob.ref, length)
        blob = dataclasses.replace(blob, length=length)
    if numbers:
        blob = dataclasses.replace(blob, sequence_number=_next_sequence_number(call, blob))
    if call.content_headers() or not (resizes or numbers):
        blob = dataclasses.replace(blob, headers=UNTYPED | call.content_headers())
    blob = state.touch(blob)
    number = {"x-ms-blob-sequence-number": str(blob.sequence_number)} if blob.type == PAGE_BLOB else {}
    return Answer(200, changed(blob) | number)


def set_tier(state: BlobState, call: Call) -> Answer:
    blob = writable(state, call)
    tier = call.headers.get("x-ms-access-tier")
    if not tier:
        raise bad_header("x-ms-access-tier", None)
    state.put(dataclasses.replace(blob, tier=tier, tier_changed_at=state.ticker.next()))
    return Answer(200)


def put_block(state: BlobState, call: Call) -> Answer:
    """Keep a block until a block list names it. Uncommitted blocks of a deleted blob stay, as in Azure."""
    state.container(call.account, call.container)
    check_md5(call)
    identifier = call.query.get("blockid")
    if identifier is None or not _is_base64(identifier):
        raise bad_query("blockid", identifier)
    image = state.pages.create(-(-len(call.body) // PAGE) * PAGE)
    _fill(state.pages, image, call.body)
    before = state.documents.get(_BLOCKS, _block_key(call, identifier))
    state.documents.put(_BLOCKS, _block_key(call, identifier), {"ref": image, "length": len(call.body)})
    if before:
        state.pages.delete(before["ref"])
    return Answer(201, {"content-md5": md5(call.body)} | _ENCRYPTED)


def put_block_list(state: BlobState, call: Call) -> Answer:
    """Make a blob of uncommitted blocks. Blocks of the committed blob cannot be named again here."""
    before = replaceable(state, call)
    listed = [unquote(identifier) for _, identifier in _BLOCK_IDS.findall(call.body.decode())]
    blocks = [state.documents.get(_BLOCKS, _block_key(call, identifier)) for identifier in listed]
    if None in blocks:
        raise BlobError("InvalidBlockList")
    content = b"".join(state.pages.read(block["ref"], 0, block["length"]) for block in blocks if block)
    stored = store_blob(state, call, before, BLOCK_BLOB, len(content))
    _fill(state.pages, stored.ref, content)
    for key, block in list(state.documents.items(_BLOCKS, _block_key(call, ""))):
        state.documents.delete(_BLOCKS, key)
        state.pages.delete(block["ref"])
    return Answer(201, changed(stored) | {"content-md5": md5(call.body)} | _ENCRYPTED)


def _page_span(call: Call, length: int) -> Span:
    span = call.span()
    if span is None:
        raise bad_header("x-ms-range", call.headers.get("x-ms-range"))
    if span.start % PAGE or span.end % PAGE or span.end > length:
        raise BlobError("InvalidPageRange")
    return span


def _page_blob_length(call: Call) -> int:
    length = call.number("x-ms-blob-content-length")
    if length % PAGE or length > LARGEST_PAGE_BLOB:
        raise bad_header("x-ms-blob-content-length", str(length))
    return length


def _next_sequence_number(call: Call, blob: Blob) -> int:
    action = call.headers["x-ms-sequence-number-action"].lower()
    if action == "increment":
        return blob.sequence_number + 1
    number = call.number("x-ms-blob-sequence-number")
    if action not in ("update", "max"):
        raise bad_header("x-ms-sequence-number-action", action)
    return number if action == "update" else max(number, blob.sequence_number)


def _stored_headers(call: Call) -> dict[str, str]:
    plain = {"content-type": call.headers["content-type"]} if "content-type" in call.headers else {}
    return UNTYPED | plain | call.content_headers()


def _fill(pages: PageStore, image: str, content: bytes) -> None:
    pages.write(image, 0, content + bytes(-len(content) % PAGE))


def _block_key(call: Call, identifier: str) -> str:
    return f"{call.account}/{call.container}/{call.name}\n{identifier}"


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except binascii.Error:
        return False
