"""Where media lives, as people write it.

    /backup    file:///backup    azure://ACCOUNT/CONTAINER[/PREFIX]    s3://BUCKET[/PREFIX]

A location is shown in reports and stored by Prefect, so none may carry a secret: what lets one in is a
`StoreAccess`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from vsa.errors import BadRequest

FORMS = "a folder's path, file:///PATH, azure://ACCOUNT/CONTAINER[/PREFIX] or s3://BUCKET[/PREFIX]"

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
_BUCKET = re.compile(r"(?=.{3,63}$)[a-z0-9]+([.-][a-z0-9]+)*")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,7}")


@dataclass(frozen=True, slots=True)
class BlobContainer:
    """A place in an Azure Blob container; `prefix` is empty or ends without a slash."""

    account: str
    container: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"azure://{self.account}/{_joined(self.container, self.prefix)}"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place in an S3 bucket; `prefix` is empty or ends without a slash."""

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"s3://{_joined(self.bucket, self.prefix)}"


Place: TypeAlias = Path | BlobContainer | Bucket


def place_of(location: str) -> Place:
    """The place that `location` names; BadRequest, without quoting what may be a secret, if it names none."""
    if "://" not in location:
        if not location:
            raise BadRequest(f"no media location was given: expected {FORMS}")
        return _local(location).absolute()
    url = _split(location)
    if url.scheme == "file":
        return _folder(url)
    if url.scheme == "azure":
        return _container(url)
    if url.scheme == "s3":
        return _bucket(url)
    raise BadRequest(f"media location {url.scheme}://{url.hostname or ''}: expected {FORMS}")


def are_nested(one: str, other: str) -> bool:
    """Whether two locations are the same place, or one lies inside the other; links in paths are followed."""
    first, second = _parts(place_of(one)), _parts(place_of(other))
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def around(place: Place) -> Iterator[Place]:
    """The places that a place lies in, from the innermost outwards; links in paths are followed."""
    if isinstance(place, Path):
        yield from place.resolve().parents
        return
    parts = place.prefix.split("/") if place.prefix else []
    for count in reversed(range(len(parts))):
        yield replace(place, prefix="/".join(parts[:count]))


def _parts(place: Place) -> tuple[str, ...]:
    """From the outermost folder inwards; no part of one kind of place is one of another kind."""
    if isinstance(place, Path):
        return place.resolve().parts
    return tuple(part for part in str(place).split("/") if part)


def _split(location: str) -> SplitResult:
    scheme = location.partition("://")[0][:16]
    try:
        url = urlsplit(location)
    except ValueError as error:
        raise BadRequest(f"media location {scheme}://... is no URL: expected {FORMS}") from error
    if "@" in url.netloc or url.query or url.fragment:
        raise BadRequest(
            f"media location {scheme}://... carries a password, a query or a fragment: a location must hold "
            "no secret; give a SAS or a key by the environment or by the Backup Media block"
        )
    return url


def _folder(url: SplitResult) -> Path:
    path = _local(unquote(url.path))
    if url.netloc not in ("", "localhost") or not path.is_absolute():
        raise BadRequest(f"{url.geturl()!r} is no local folder: expected file:///absolute/path")
    return path


def _local(path: str) -> Path:
    """BadRequest for what no file system can name: it would be a ValueError wherever it is used first."""
    try:
        nameable = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        nameable = False
    if not nameable:
        raise BadRequest(
            f"media location {path[:200]!r} holds a character that no path has: expected {FORMS}"
        )
    return Path(path)


def _container(url: SplitResult) -> BlobContainer:
    container, _, prefix = url.path.strip("/").partition("/")
    _require(_ACCOUNT, url.netloc, "storage account", "3 to 24 of a-z 0-9")
    _require(_CONTAINER, container, "container", "3 to 63 of a-z 0-9 and single hyphens")
    return BlobContainer(url.netloc, container, _prefix(prefix))


def _bucket(url: SplitResult) -> Bucket:
    _require(_BUCKET, url.netloc, "bucket", "3 to 63 of a-z 0-9, hyphens and dots")
    return Bucket(url.netloc, _prefix(url.path.strip("/")))


def _prefix(prefix: str) -> str:
    if prefix:
        _require(_PREFIX, prefix, "prefix", "up to eight parts of A-Z a-z 0-9 . _ - joined by '/'")
    return prefix


def _require(form: re.Pattern[str], value: str, what: str, expected: str) -> None:
    if not form.fullmatch(value):
        raise BadRequest(f"media location: {value!r} cannot be a {what}: expected {expected}")


def _joined(place: str, prefix: str) -> str:
    return f"{place}/{prefix}" if prefix else place
