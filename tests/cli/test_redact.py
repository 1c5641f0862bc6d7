from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsa.redact import RedactingFilter, install, public_url, redact

keys = st.binary(min_size=64, max_size=64).map(lambda raw: base64.b64encode(raw).decode())
signatures = st.binary(min_size=32, max_size=32).map(lambda raw: base64.b64encode(raw).decode())


def sas_url(signature: str) -> str:
    query = urlencode({"sv": "2018-03-28", "sr": "b", "si": "c1", "sig": signature, "se": "2026-01-01"})
    return f"https://md-x.z1.blob.storage.azure.net/abc/abcd?{query}"


WAYS_TO_LEAK_A_SAS: dict[str, Callable[[str], str]] = {
    "url": lambda url: url,
    "sentence": lambda url: f"GET {url}, then retried.",
    "repr": lambda url: repr({"url": url}),
    "json": lambda url: json.dumps({"accessSAS": url}),
    "json with escaped ampersands": lambda url: json.dumps({"accessSAS": url}).replace("&", "\\u0026"),
    "xml": lambda url: f"<Source>{url.replace('&', '&amp;')}</Source>",
    "inside another query": lambda url: f"https://proxy/?target={quote(url, safe='')}",
    "twice inside": lambda url: f"https://proxy/?target={quote(quote(url, safe=''), safe='')}",
    "request line": lambda url: f'"GET /abc/abcd?{url.partition("?")[2]} HTTP/1.1" 206',
}


def forms(secret: str) -> set[str]:
    """The secret as it may appear: raw, percent-encoded once, twice, three times."""
    once = quote(secret, safe="")
    return {secret, once, quote(once, safe=""), quote(quote(once, safe=""), safe="")}


@pytest.mark.parametrize("way", WAYS_TO_LEAK_A_SAS)
@given(signature=signatures)
def test_a_sas_signature_never_survives(way: str, signature: str) -> None:
    clean = redact(WAYS_TO_LEAK_A_SAS[way](sas_url(signature)))
    assert not any(form in clean for form in forms(signature))
    assert "md-x.z1.blob" in clean or way == "request line"


@given(key=keys)
@pytest.mark.parametrize(
    "text",
    [
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};EndpointSuffix=core.windows.net",
        '{{"keys": [{{"keyName": "key1", "value": "{}"}}]}}',
        "Authorization: SharedKey account:{}",
        "SharedKeyLite account:{} was refused",
        "the key {} was typed here",
    ],
)
def test_an_account_key_never_survives(text: str, key: str) -> None:
    assert key not in redact(text.format(key))


@given(claims=st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=4), signature=signatures)
@pytest.mark.parametrize("text", ["Authorization: Bearer {}", '{{"access_token": "{}"}}', "token {} expired"])
def test_a_bearer_token_never_survives(text: str, claims: dict[str, str], signature: str) -> None:
    parts = [json.dumps({"alg": "RS256"}), json.dumps({"aud": "x", **claims}), signature]
    token = ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
    clean = redact(text.format(token))
    assert not any(part in clean for part in token.split("."))


@pytest.mark.parametrize(
    "text",
    ["client_secret=s3cr~t.Value&scope=x", "{'client_secret': 's3cr~t.Value'}", "password=s3cr~t.Value"],
)
def test_a_sign_in_secret_never_survives(text: str) -> None:
    assert "s3cr~t.Value" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "PREFECT_API_AUTH_STRING=admin:hunter2",
        "{'PREFECT_API_AUTH_STRING': 'admin:hunter2'}",
        "Authorization: Basic hunter2",
        "{'Authorization': 'Bearer hunter2'}",
        "[(b'authorization', b'Basic hunter2')]",
        "postgresql+asyncpg://vsa:hunter2@db:5432/prefect",
        "postgresql://vsa:an@hunter2/b@db:5432/prefect",
        "redis://:hunter2@cache:6379/0",
        "passphrase='three words of hunter2'",
        '{"passphrase": "it\'s hunter2"}',
        '{\\"password\\": \\"of hunter2\\"}',
        "AccountKey = hunter2;EndpointSuffix=core.windows.net",
        "PGPASSWORD=hunter2 AZURE_CLIENT_SECRET=hunter2",
    ],
)
def test_what_signs_in_elsewhere_never_survives(text: str) -> None:
    assert "hunter2" not in redact(text)
    assert "REDACTED" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "disk password-vm-os of passphrase_db: 3 extents",
        "Authorization: required, Basic authentication failed",
        "wrong passphrase: try another",
        "http://127.0.0.1:4200/api refused ops@example.org",
        "https://host:8443/a/b@c",
        "postgresql://vsa@db:5432/prefect",
        "x-ms-request-id: 7d3f8c1e-0b1a-4c55-9c1f-0a1b2c3d4e5f",
        "design=round, assign=left",
        "the bearer of this",
        "sha256 " + "a" * 64,
        "x/y?sv=1&sr=b",
        "3 signals",
    ],
)
def test_harmless_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


@given(st.text())
def test_redacting_again_changes_nothing(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(signature=signatures)
def test_a_public_url_names_the_place_and_nothing_else(signature: str) -> None:
    assert public_url(sas_url(signature)) == "https://md-x.z1.blob.storage.azure.net/abc/abcd"
    assert public_url("https://user:word@host:1/x?sig=1#part") == "https://host:1/x"


class Journal:
    """A real logger with a real handler, and what it wrote."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.logger = logging.Logger("journal", logging.DEBUG)
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(logging.Formatter("%(name)s %(message)s %(extra)s", defaults={"extra": ""}))
        self.logger.addHandler(handler)
        install(self.logger)

    @property
    def text(self) -> str:
        return self.stream.getvalue()


@pytest.fixture
def journal() -> Iterator[Journal]:
    yield Journal()


CANARY = "Q0FOQVJZLWNhbmFyeQ=="
URL = sas_url(CANARY)


class Granted:
    """Shows its URL, as careless objects do."""

    def __repr__(self) -> str:
        return f"Granted({URL})"


def test_arguments_are_redacted_after_formatting(journal: Journal) -> None:
    journal.logger.info("reading %s of %r, sig=%s", URL, Granted(), CANARY)
    assert "reading https://md-x" in journal.text
    assert not any(form in journal.text for form in forms(CANARY))


def test_a_traceback_is_kept_but_redacted_through_its_causes(journal: Journal) -> None:
    try:
        try:
            raise OSError(f"cannot reach {URL}")
        except OSError as error:
            raise RuntimeError(f"gave up on {URL}") from error
    except RuntimeError:
        journal.logger.exception("read failed")
    assert "RuntimeError: gave up on https://md-x" in journal.text
    assert "direct cause" in journal.text
    assert not any(form in journal.text for form in forms(CANARY))


def test_extras_of_a_record_are_redacted(journal: Journal) -> None:
    journal.logger.info("granted", extra={"extra": {"url": URL, "by": Granted()}})
    assert "md-x" in journal.text and not any(form in journal.text for form in forms(CANARY))


def test_a_message_that_does_not_fit_its_arguments_is_still_logged(journal: Journal) -> None:
    journal.logger.info("%d extents of %s", *[URL])
    assert "extents of" in journal.text and not any(form in journal.text for form in forms(CANARY))


def test_records_of_child_loggers_are_redacted_by_the_handlers(journal: Journal) -> None:
    child = logging.Logger("journal.child")
    child.parent = journal.logger
    child.warning("got %s", URL)
    assert "journal.child got https" in journal.text and not any(
        form in journal.text for form in forms(CANARY)
    )


def test_installing_twice_filters_once(journal: Journal) -> None:
    install(journal.logger)
    assert [type(item) for item in journal.logger.filters] == [RedactingFilter]
