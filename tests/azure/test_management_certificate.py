"""Certificates as they are and as they go wrong."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

from tests.certificates import BEGIN, END, certificate_of, key_of
from vsa.azure.management_certificate import certificate_problem

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
_UNREADABLE = "it cannot be read: expected an X.509 certificate and its private key in PEM form"


@pytest.mark.parametrize(
    "pem",
    [
        certificate_of("proxy") + key_of("proxy"),
        key_of("proxy") + certificate_of("proxy"),
        certificate_of("proxy") + certificate_of("authority") + key_of("proxy"),
        (certificate_of("proxy") + key_of("proxy")).replace("\n", " "),
    ],
    ids=["certificate first", "key first", "with its authority", "pasted into one line"],
)
def test_a_certificate_and_its_key_are_of_use_while_it_is_valid(pem: str) -> None:
    second = dt.timedelta(seconds=1)
    assert [certificate_problem(pem, now) for now in (BEGIN, NOW, END)] == [""] * 3
    assert certificate_problem(pem, BEGIN - second) == "it is not valid before 2026-01-01"
    assert certificate_problem(pem, END + second) == "it expired on 2027-01-01"


@pytest.mark.parametrize(
    ("pem", "problem"),
    [
        (certificate_of("proxy"), "it holds no private key"),
        (certificate_of("proxy") + key_of("other"), "its private key belongs to another certificate"),
        (
            certificate_of("authority") + certificate_of("proxy") + key_of("proxy"),
            "its private key belongs to another certificate",
        ),
        (
            certificate_of("proxy") + key_of("proxy", BestAvailableEncryption(b"word")),
            "its private key is encrypted, expected one without a passphrase",
        ),
        (key_of("proxy"), _UNREADABLE),
        ("not a certificate", _UNREADABLE),
        (" ", _UNREADABLE),
        (certificate_of("proxy")[:200], _UNREADABLE),
        (certificate_of("proxy") + key_of("proxy").replace("M", "A", 1), _UNREADABLE),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + key_of("proxy"), _UNREADABLE),
    ],
)
def test_what_opens_nothing_is_told_with_its_reason_and_without_its_contents(pem: str, problem: str) -> None:
    assert certificate_problem(pem, NOW) == problem
