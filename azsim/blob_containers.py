"""Containers, their listings, and the one service property that matters here: soft delete of blobs."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Iterable

from azsim import blob_xml
from azsim.blob_call import Answer, Call
from azsim.blob_errors import BlobError, bad_query
from azsim.blob_model import Blob
from azsim.blob_state import BlobState
from azsim.blob_time import http_date
from azsim.documents import Document

_CONTAINER_NAME = re.compile(r"[a-z0-9](-?[a-z0-9]){2,62}")
_RETENTION = re.compile(r"<DeleteRetentionPolicy>(.*?)</DeleteRetentionPolicy>", re.DOTALL)
_LARGEST_LISTING = 5000


def create_container(state: BlobState, call: Call) -> Answer:
    if not _CONTAINER_NAME.fullmatch(call.container):
        raise BlobError("InvalidResourceName")
    return Answer(201, _changed(state.add_container(call.account, call.container)))


def delete_container(state: BlobState, call: Call) -> Answer:
    state.remove_container(call.account, call.container)
    return Answer(202)


def container_properties(state: BlobState, call: Call) -> Answer:
    body = state.container(call.account, call.container)
    lease = {"x-ms-lease-state": "available", "x-ms-lease-status": "unlocked"}
    return Answer(200, _changed(body) | lease)


def list_containers(state: BlobState, call: Call) -> Answer:
    prefix = call.query.get("prefix", "")
    items = "".join(
        f"<Container>{blob_xml.element('Name', name)}<Properties>"
        f"{blob_xml.element('Last-Modified', http_date(body['modified_at']))}"
        f"{blob_xml.element('Etag', body['etag'])}</Properties></Container>"
        for name, body in state.containers(call.account)
        if name.startswith(prefix)
    )
    inner = f"<Containers>{items}</Containers>" if items else "<Containers />"
    attributes = {"ServiceEndpoint": f"{call.origin}/{call.account}/"}
    return _xml(blob_xml.enumeration(attributes, _repeated(call), inner, ""))


def list_blobs(state: BlobState, call: Call) -> Answer:
    """One answer of List Blobs: by name, at most maxresults, with a marker when there are more."""
    state.container(call.account, call.container)
    include = set(call.query.get("include", "").lower().split(","))
    asked = call.query.get("prefix", "")
    blobs = (b for b in state.blobs(call.account, call.container, asked) if _is_listed(b, include))
    first = _marked_key(call)
    entries = [
        entry for entry in _grouped(blobs, asked, call.query.get("delimiter", "")) if entry[0] >= first
    ]
    limit = min(call.query_number("maxresults", _LARGEST_LISTING), _LARGEST_LISTING)
    marker = base64.urlsafe_b64encode(entries[limit][0].encode()).decode() if len(entries) > limit else ""
    items = "".join(_item(state, entry, with_metadata="metadata" in include) for _, entry in entries[:limit])
    inner = f"<Blobs>{items}</Blobs>" if items else "<Blobs />"
    attributes = {"ServiceEndpoint": f"{call.origin}/{call.account}/", "ContainerName": call.container}
    return _xml(blob_xml.enumeration(attributes, _repeated(call), inner, marker))


def get_service_properties(state: BlobState, call: Call) -> Answer:
    days = state.account(call.account).retention_days
    enabled = blob_xml.element("Enabled", str(days is not None).lower())
    policy = f"{enabled}{blob_xml.element('Days', days)}" if days is not None else enabled
    body = f"<DeleteRetentionPolicy>{policy}</DeleteRetentionPolicy>"
    return _xml(blob_xml.document(f"<StorageServiceProperties>{body}</StorageServiceProperties>"))


def set_service_properties(state: BlobState, call: Call) -> Answer:
    """Only DeleteRetentionPolicy is kept; other properties are accepted and have no effect."""
    found = _RETENTION.search(call.body.decode())
    if found:
        enabled = re.search(r"<Enabled>true</Enabled>", found[1], re.IGNORECASE)
        days = re.search(r"<Days>(\d+)</Days>", found[1])
        if enabled and not days:
            raise BlobError("InvalidXmlDocument")
        account = state.account(call.account)
        kept = int(days[1]) if enabled and days else None
        state.put_account(dataclasses.replace(account, retention_days=kept))
    return Answer(202)


def _is_listed(blob: Blob, include: set[str]) -> bool:
    if blob.snapshot and "snapshots" not in include:
        return False
    return blob.deleted_at is None or "deleted" in include


def _grouped(blobs: Iterable[Blob], prefix: str, delimiter: str) -> Iterable[tuple[str, Blob | str]]:
    """Blobs with their keys; names that go on after a delimiter become one entry, the common part."""
    last = None
    for blob in blobs:
        head, found, _ = blob.name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        if not found:
            yield blob.key, blob
        elif prefix + head + found != last:
            last = prefix + head + found
            yield f"{blob.account}/{blob.container}/{last}", last


def _item(state: BlobState, entry: Blob | str, *, with_metadata: bool) -> str:
    if isinstance(entry, str):
        return f"<BlobPrefix>{blob_xml.element('Name', entry)}</BlobPrefix>"
    days_left = state.retention_days_left(entry)
    account = state.account(entry.account)
    return blob_xml.blob_item(entry, account, state.now(), days_left=days_left, with_metadata=with_metadata)


def _marked_key(call: Call) -> str:
    marker = call.query.get("marker", "")
    try:
        return base64.urlsafe_b64decode(marker).decode()
    except ValueError:
        raise bad_query("marker", marker) from None


def _repeated(call: Call) -> dict[str, str]:
    names = {"Prefix": "prefix", "Marker": "marker", "MaxResults": "maxresults", "Delimiter": "delimiter"}
    return {name: call.query[parameter] for name, parameter in names.items() if parameter in call.query}


def _changed(container: Document) -> dict[str, str]:
    return {
        "etag": f'"{container["etag"]}"',
        "last-modified": http_date(container["modified_at"]),
    }


def _xml(body: bytes) -> Answer:
    return Answer(200, {"content-type": "application/xml"}, body)
