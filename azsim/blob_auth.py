"""Who may call: Shared Key, service SAS and account SAS, verified by their real signatures.

Sources: REST "Authorize with Shared Key", "Create a service SAS", "Create an account SAS". The age of
x-ms-date is not judged: clients sign by real time while the simulation's clock may be far ahead.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from azsim.blob_call import Call
from azsim.blob_errors import BlobError
from azsim.blob_model import Account
from azsim.blob_time import parse_sas_time

_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)
_RESPONSE_OVERRIDES = ("rscc", "rscd", "rsce", "rscl", "rsct")
_VERSION_WITH_SNAPSHOT_FIELD = "2018-11-09"
_VERSION_WITH_ENCRYPTION_SCOPE = "2020-12-06"


@dataclass(frozen=True, slots=True)
class Need:
    """What an operation asks of a SAS: any one of `letters`, on a service, container or object."""

    letters: str
    resource: str
    """One of s, c, o."""


def authorize(
    call: Call, account: Account, need: Need, now: dt.datetime, bearer_is_valid: Callable[[str], bool]
) -> str | None:
    """The permission letters that the call has, None for all of them; BlobError when it has no right."""
    authorization = call.headers.get("authorization", "")
    scheme, _, credential = authorization.partition(" ")
    if scheme.lower() == "sharedkey":
        _check_shared_key(call, account, credential)
        return None
    if scheme.lower() == "bearer":
        if not bearer_is_valid(credential):
            raise _unauthenticated("The bearer token is unknown or expired.", status=401)
        return None
    if "sig" in call.query:
        return authorize_sas(call, account, need, now)
    raise BlobError("NoAuthenticationInformation")


def authorize_sas(call: Call, account: Account, need: Need, now: dt.datetime) -> str:
    """The letters of the SAS in the call's query, whose signature, dates, scope and letters must fit."""
    query = call.query
    to_sign = _account_sas_text(call) if "ss" in query else _service_sas_text(call)
    if not _is_signed_by(account, to_sign, query["sig"]):
        raise _unauthenticated(f"Signature did not match. String to sign used was {to_sign}")
    _check_dates(query, now)
    if "ss" in query:
        _check_account_scope(query, need)
    elif not _covers(query["sr"], need.resource, is_snapshot="snapshot" in query):
        raise BlobError("AuthorizationPermissionMismatch")
    letters = query.get("sp", "")
    if not set(letters) & set(need.letters):
        raise BlobError("AuthorizationPermissionMismatch")
    return letters


def _check_shared_key(call: Call, account: Account, credential: str) -> None:
    name, _, signature = credential.partition(":")
    if name != account.name or not _is_signed_by(account, shared_key_text(call), signature):
        raise _unauthenticated(
            f"The MAC signature found in the HTTP request '{signature}' is not the same as any computed "
            f"signature. Server used following string to sign: '{shared_key_text(call)}'."
        )


def shared_key_text(call: Call) -> str:
    """The string to sign of Shared Key, service version 2015-02-21 and later."""
    headers = dict(call.headers)
    if headers.get("content-length") == "0":
        headers["content-length"] = ""
    lines = [call.method, *(headers.get(name, "") for name in _SIGNED_HEADERS)]
    named = sorted((name for name in headers if name.startswith("x-ms-")), key=_header_order)
    lines += [f"{name}:{headers[name]}" for name in named]
    lines.append(f"/{call.account}{call.raw_path}")
    lines += [f"{name}:{value}" for name, value in sorted(call.query.items())]
    return "\n".join(lines)


def _header_order(name: str) -> str:
    # The service sorts by word weights: hyphens do not count, an underscore comes before digits.
    return name.replace("-", "").replace("_", "!")


def _service_sas_text(call: Call) -> str:
    query = call.query
    scope, version = query.get("sr", ""), query.get("sv", "")
    if scope not in ("b", "bs", "c") or "skoid" in query or version < _VERSION_WITH_SNAPSHOT_FIELD:
        raise _unauthenticated(
            f"A service SAS has sr=b, bs or c, is signed with an account key and has sv "
            f"{_VERSION_WITH_SNAPSHOT_FIELD} or later; found sr={scope!r} sv={version!r}."
        )
    resource = f"/blob/{call.account}/{call.container}"
    fields = [query.get(name, "") for name in ("sp", "st", "se")]
    fields.append(resource if scope == "c" else f"{resource}/{call.name}")
    fields += [query.get(name, "") for name in ("si", "sip", "spr", "sv", "sr")]
    fields.append(query.get("snapshot", "") if scope == "bs" else "")
    if version >= _VERSION_WITH_ENCRYPTION_SCOPE:
        fields.append(query.get("ses", ""))
    return "\n".join(fields + [query.get(name, "") for name in _RESPONSE_OVERRIDES])


def _account_sas_text(call: Call) -> str:
    query = call.query
    fields = [call.account] + [
        query.get(name, "") for name in ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv")
    ]
    if query.get("sv", "") >= _VERSION_WITH_ENCRYPTION_SCOPE:
        fields.append(query.get("ses", ""))
    return "\n".join([*fields, ""])


def _check_dates(query: dict[str, str], now: dt.datetime) -> None:
    try:
        start = parse_sas_time(query["st"]) if query.get("st") else now
        expiry = parse_sas_time(query["se"])
    except (KeyError, ValueError) as error:
        raise _unauthenticated(f"The SAS has no valid start or expiry: {error}") from error
    if not start <= now < expiry:
        raise _unauthenticated(
            f"Signature not valid in the specified time frame: Start [{start:%a, %d %b %Y %H:%M:%S GMT}] - "
            f"Expiry [{expiry:%a, %d %b %Y %H:%M:%S GMT}] - Current [{now:%a, %d %b %Y %H:%M:%S GMT}]"
        )


def _check_account_scope(query: dict[str, str], need: Need) -> None:
    if "b" not in query.get("ss", ""):
        raise BlobError("AuthorizationServiceMismatch")
    if need.resource not in query.get("srt", ""):
        raise BlobError("AuthorizationResourceTypeMismatch")


def _covers(scope: str, resource: str, *, is_snapshot: bool) -> bool:
    """A container SAS covers its blobs and snapshots; a blob SAS one blob, a snapshot SAS one snapshot."""
    if scope == "c":
        return resource in "co"
    return resource == "o" and is_snapshot == (scope == "bs")


def _is_signed_by(account: Account, text: str, signature: str) -> bool:
    return any(hmac.compare_digest(sign(key, text), signature) for key in account.keys)


def sign(key: str, text: str) -> str:
    """HMAC-SHA256 under a base64 key, in base64."""
    digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def _unauthenticated(detail: str, *, status: int = 403) -> BlobError:
    return BlobError("AuthenticationFailed", status, AuthenticationErrorDetail=detail)
