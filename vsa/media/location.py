"""Where media lives: a folder's path or a file:// URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from vsa.errors import BadRequest


def folder_of(location: str) -> Path:
    """The folder that `location` names; BadRequest for any other kind of place."""
    if "://" not in location:
        if not location:
            raise BadRequest("no media location was given: expected a folder or a file:// URL")
        return Path(location).absolute()
    url = urlsplit(location)
    if url.scheme != "file":
        raise BadRequest(
            f"media location {url.scheme}://{url.hostname or ''}: only folders and file:// URLs are known"
        )
    path = Path(unquote(url.path))
    if url.netloc not in ("", "localhost") or url.query or url.fragment or not path.is_absolute():
        raise BadRequest(f"{location!r} is no local folder: expected file:///absolute/path")
    return path
