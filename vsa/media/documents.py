"""Self-checked JSON documents: media.json, log entries and intents (docs/media-format.md, "Documents").

A document is one JSON object in UTF-8 whose first member is `"sha256"`. The digest covers the document's
bytes with that first member cut out, so a reader needs no canonical JSON of its own to check it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vsa.errors import BadRequest, MediaDamaged, NewerVersion
from vsa.media.layout import MAX_DOCUMENT_SIZE

M = TypeVar("M", bound=BaseModel)

_HEAD = b'{"sha256":"'
_JOINT = b'",'
_BODY_AT = len(_HEAD) + 64 + len(_JOINT)
_WRITTEN_BY_NEWER = frozenset({"extra_forbidden", "union_tag_invalid", "enum", "literal_error"})


def encode(document: BaseModel) -> bytes:
    """The bytes to store; BadRequest if they are more than any reader would accept."""
    fields = document.model_dump(mode="json")
    body = json.dumps(
        fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
    data = b"".join([_HEAD, sha256(body).encode(), _JOINT, body[1:]])
    if len(data) > MAX_DOCUMENT_SIZE:
        raise BadRequest(
            f"a {type(document).__name__} of {len(data)} bytes is too large: {MAX_DOCUMENT_SIZE} is the limit"
        )
    return data


def decode(data: bytes, model: type[M], name: str) -> M:
    """The document `name`. MediaDamaged if it was altered; NewerVersion if a newer version wrote it."""
    body = checked_body(data, name)
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:3])
        if all(item["type"] in _WRITTEN_BY_NEWER for item in error.errors()):
            raise NewerVersion(
                f"{name} was written by a newer version ({what}): upgrade azure-vsa"
            ) from error
        raise MediaDamaged(f"{name} is not what its kind requires: {what}") from error


def decode_loosely(data: bytes, name: str) -> dict[str, Any]:
    """The checked document as plain JSON, for fields that every format version has."""
    try:
        fields = json.loads(checked_body(data, name))
    except ValueError as error:
        raise MediaDamaged(f"{name} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise MediaDamaged(f"{name} is no JSON object")
    return fields


def checked_body(data: bytes, name: str) -> bytes:
    """The JSON object without its digest; MediaDamaged if the digest is absent or of other bytes."""
    stated, body = data[len(_HEAD) : len(_HEAD) + 64], b"{" + data[_BODY_AT:]
    framed = data.startswith(_HEAD) and data[_BODY_AT - len(_JOINT) : _BODY_AT] == _JOINT
    if not framed or sha256(body).encode() != stated:
        raise MediaDamaged(
            f"{name} does not match its own sha256: its bytes have changed since they were written"
        )
    return body


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
