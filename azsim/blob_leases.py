"""Lease Blob: acquire, renew, change, release, break."""

from __future__ import annotations

import dataclasses
import uuid

from azsim.blob_call import Answer, Call, check_conditions
from azsim.blob_errors import BlobError, bad_header
from azsim.blob_model import Blob, Lease
from azsim.blob_state import BlobState
from azsim.blob_writes import changed

_INFINITE = -1


def lease_blob(state: BlobState, call: Call) -> Answer:
    blob = state.find(call.account, call.container, call.name)
    if blob is None:
        raise BlobError("BlobNotFound")
    check_conditions(call, blob)
    action = call.headers.get("x-ms-lease-action", "").lower()
    if action == "acquire":
        return _acquire(state, call, blob)
    if action == "break":
        return _break(state, blob)
    if action not in ("renew", "change", "release"):
        raise bad_header("x-ms-lease-action", call.headers.get("x-ms-lease-action"))
    lease = _held_lease(call, blob)
    if action == "release":
        state.put(dataclasses.replace(blob, lease=None))
        return Answer(200, changed(blob))
    if action == "change":
        lease = dataclasses.replace(lease, id=call.headers.get("x-ms-proposed-lease-id", lease.id).lower())
    return _store(state, blob, _new_lease(state, lease.id, lease.seconds), 200)


def _acquire(state: BlobState, call: Call, blob: Blob) -> Answer:
    proposed = call.headers.get("x-ms-proposed-lease-id", "").lower()
    if blob.lease and blob.lease_state(state.now()) == "leased" and proposed != blob.lease.id:
        raise BlobError("LeaseAlreadyPresent")
    text = call.headers.get("x-ms-lease-duration", "")
    if text != str(_INFINITE) and not (text.isdigit() and 15 <= int(text) <= 60):
        raise bad_header("x-ms-lease-duration", text or None)
    identifier = proposed or str(uuid.UUID(bytes=state.random_bytes(16), version=4))
    return _store(state, blob, _new_lease(state, identifier, int(text)), 201)


def _break(state: BlobState, blob: Blob) -> Answer:
    """Break at once: the period that a caller may ask for is not waited out."""
    if blob.lease is None:
        raise BlobError("LeaseNotPresentWithLeaseOperation")
    state.put(dataclasses.replace(blob, lease=dataclasses.replace(blob.lease, broken=True)))
    return Answer(202, changed(blob) | {"x-ms-lease-time": "0"})


def _held_lease(call: Call, blob: Blob) -> Lease:
    if blob.lease is None:
        raise BlobError("LeaseNotPresentWithLeaseOperation")
    if call.headers.get("x-ms-lease-id", "").lower() != blob.lease.id:
        raise BlobError("LeaseIdMismatchWithLeaseOperation")
    return blob.lease


def _new_lease(state: BlobState, identifier: str, seconds: int) -> Lease:
    expires_at = None if seconds == _INFINITE else state.now() + seconds * 10**7
    return Lease(id=identifier, seconds=seconds, expires_at=expires_at)


def _store(state: BlobState, blob: Blob, lease: Lease, status: int) -> Answer:
    state.put(dataclasses.replace(blob, lease=lease))
    return Answer(status, changed(blob) | {"x-ms-lease-id": lease.id})
