"""Snapshot Blob, Delete Blob and Undelete Blob, with the rules of premium accounts and of soft delete."""

from __future__ import annotations

import dataclasses

from azsim.blob_call import Answer, Call, check_conditions, check_lease
from azsim.blob_errors import BlobError, bad_header
from azsim.blob_model import Blob
from azsim.blob_state import BlobState
from azsim.blob_time import etag, snapshot_id
from azsim.blob_writes import changed


def snapshot_blob(state: BlobState, call: Call) -> Answer:
    """Freeze the blob. A lease does not hinder it; metadata in the request becomes the snapshot's own."""
    blob = state.find(call.account, call.container, call.name)
    if blob is None:
        raise BlobError("BlobNotFound")
    check_conditions(call, blob)
    if "x-ms-lease-id" in call.headers:
        check_lease(call, blob, state.now())
    if blob.is_pending:
        raise BlobError("PendingCopyOperation")
    if state.account(blob.account).is_premium:
        _check_premium_rules(state, blob)
    ticks = state.ticker.next()
    taken = take(state, blob, ticks, call.metadata())
    state.put(dataclasses.replace(blob, snapshotted_at=ticks))
    headers = {"x-ms-snapshot": taken.snapshot or "", "x-ms-request-server-encrypted": "false"}
    return Answer(201, changed(taken) | headers)


def take(state: BlobState, blob: Blob, ticks: int, metadata: dict[str, str]) -> Blob:
    """The blob's snapshot of this moment, with its metadata if none is given; no rule is asked."""
    taken = dataclasses.replace(
        blob, snapshot=snapshot_id(ticks), ref=state.pages.freeze(blob.ref), lease=None, snapshotted_at=None
    )
    if metadata:
        taken = dataclasses.replace(taken, metadata=metadata, etag=etag(ticks), modified_at=ticks)
    state.put(taken)
    return taken


def delete_blob(state: BlobState, call: Call) -> Answer:
    """Delete a snapshot, or a blob with or without its snapshots; soft while the account retains."""
    snapshot = call.query.get("snapshot")
    blob = state.find(call.account, call.container, call.name, snapshot)
    if blob is None:
        raise BlobError("BlobNotFound")
    check_conditions(call, blob)
    which = call.headers.get("x-ms-delete-snapshots", "").lower()
    if which not in ("", "include", "only") or (snapshot and which):
        raise bad_header("x-ms-delete-snapshots", which)
    if not snapshot and which != "only":
        check_lease(call, blob, state.now())
    snapshots = [] if snapshot else state.snapshots(blob)
    if snapshots and not which:
        raise BlobError("SnapshotsPresent")
    retains = state.account(blob.account).retention_days is not None
    for gone in snapshots if which == "only" else [*snapshots, blob]:
        _delete(state, gone, soft=retains)
    return Answer(202, {"x-ms-delete-type-permanent": "false" if retains else "true"})


def undelete_blob(state: BlobState, call: Call) -> Answer:
    """Restore a soft-deleted blob and all its soft-deleted snapshots; a live blob is no error."""
    state.container(call.account, call.container)
    family = state.family(call.account, call.container, call.name)
    if not any(blob.snapshot is None for blob in family):
        raise BlobError("BlobNotFound")
    for blob in family:
        if blob.deleted_at is not None:
            state.put(dataclasses.replace(blob, deleted_at=None))
    return Answer(200)


def _delete(state: BlobState, blob: Blob, *, soft: bool) -> None:
    if soft:
        state.put(dataclasses.replace(blob, deleted_at=state.ticker.next(), lease=None))
    else:
        state.erase(blob)


def _check_premium_rules(state: BlobState, blob: Blob) -> None:
    """REST "Snapshot Blob": at most 100 snapshots of a premium page blob, one every ten minutes."""
    if len(state.snapshots(blob)) >= state.settings.snapshots_per_premium_blob:
        raise BlobError("SnapshotCountExceeded")
    interval = int(state.settings.premium_snapshot_interval_seconds * 10**7)
    if blob.snapshotted_at is not None and state.now() - blob.snapshotted_at < interval:
        raise BlobError("SnapshotOperationRateExceeded")
