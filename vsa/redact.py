"""Keeps secrets out of logs, errors and reports.

The secrets of this project: SAS signatures (whoever holds one reads the disk), bearer tokens,
storage account keys, client secrets, passphrases, and what signs in to Prefect's server and database.
They are removed from finished text, because URLs reach logs by way of arguments, exceptions and other
people's libraries.
"""

from __future__ import annotations

import logging
import re
import traceback
from urllib.parse import urlsplit, urlunsplit

MASK = "REDACTED"

_NAMED = (
    r"sig|x-amz-signature|x-amz-security-token|accountkey|sharedaccesskey|account_key|accesskey"
    r"|access_token|refresh_token|id_token|session_token|client_secret|client_assertion"
    r"|password|passwd|pgpassword|passphrase|api[_-]?key|auth_string|secret_?key|secret_?access_?key"
)
# A value ends where a query, a connection string, a quoted string or a sentence goes on.
_VALUE = r"[^&;\s\"'<>\\,)\]}]+"
# One in quotes ends with the quote that it began with, which JSON inside of JSON escapes.
_QUOTED = r"(?P<quote>\\?[\"']))(?:(?!(?P=quote))(?:\\.|[^\\\n]))+"

_SECRETS = (
    # sig=..., AccountKey = ..., and the same with = percent-encoded inside another URL's query
    re.compile(rf"(?i)(?P<keep>(?<![a-z])(?:{_NAMED})(?:=| = |%(?:25)*3D)){_VALUE}"),
    # passphrase='three words'
    re.compile(rf"(?i)(?P<keep>(?<![a-z])(?:{_NAMED})\s*=\s*b?{_QUOTED}"),
    # "client_secret": "...", 'sig': ['...'], ('PREFECT_API_KEY', '...')
    re.compile(rf"(?i)(?P<keep>[\"'](?:[\w-]*[_-])?(?:{_NAMED})\\?[\"']\s*[:,]\s*\[?b?{_QUOTED}"),
    # Authorization: Basic ..., and the header as part of a dict or of a list of pairs
    re.compile(
        r"(?i)(?P<keep>\bauthorization\\?[\"']?\s*[:=,]\s*b?\\?[\"']?"
        rf"(?:basic|bearer|digest|negotiate|ntlm)\s+){_VALUE}"
    ),
    # postgresql://user:...@host; a port with a path behind it, in which there is an @, is no password.
    re.compile(
        r"(?i)(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s/?#:@\"'<>]*:)"
        r"(?!\d{1,5}[/?#])[^\s?#\"'<>]+(?=@)"
    ),
    re.compile(r"(?i)(?P<keep>\bbearer\s+)[a-z0-9._~+/=-]{16,}"),
    re.compile(r"(?i)(?P<keep>\bsharedkey(?:lite)?\s+[a-z0-9-]+:)[a-z0-9+/=]+"),
    # A JSON web token anywhere: header and payload are JSON objects, so both begin with eyJ.
    re.compile(r"(?P<keep>)\beyJ[\w-]+\.eyJ[\w-]+\.[\w-]*"),
    # A storage account key anywhere: 64 bytes in base64.
    re.compile(r"(?P<keep>)(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}=="),
    re.compile(r"(?s)(?P<keep>-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)"),
)


def public_url(url: str) -> str:
    """The URL without query, fragment and user part: what may be shown of it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def redact(text: str) -> str:
    """The text with every secret it is known to hold masked."""
    for secret in _SECRETS:
        text = secret.sub(rf"\g<keep>{MASK}", text)
    return text


class RedactingFilter(logging.Filter):
    """Rewrites a record to the text it would become, redacted: message, arguments, traceback, extras.

    The traceback is rendered here and the exception dropped from the record, so that no handler
    behind can render it again in its own way.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message, trace = _message(record), _trace(record)
        for name, value in vars(record).items():
            setattr(record, name, _without_secrets(value))
        record.msg, record.args = redact(message), ()
        record.exc_info, record.exc_text = None, redact(trace) if trace else None
        return True


def install(logger: logging.Logger) -> None:
    """Redact what this logger is given and what reaches its handlers from loggers below it.

    Call it once the handlers are there: a logger's own filters never see its children's records.
    """
    for place in (logger, *logger.handlers):
        if not any(isinstance(existing, RedactingFilter) for existing in place.filters):
            place.addFilter(RedactingFilter())


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # A format that does not fit its arguments must still be logged, and its arguments redacted.
        return f"{record.msg} {record.args!r}"


def _trace(record: logging.LogRecord) -> str:
    if record.exc_text:
        return record.exc_text
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")


def _without_secrets(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, int | float):
        return value
    shown = repr(value)
    clean = redact(shown)
    return value if clean == shown else clean
