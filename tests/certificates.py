"""Self-signed certificates and their keys, as an operator would paste them into a block."""

from __future__ import annotations

import datetime as dt
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

BEGIN, END = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2027, 1, 1, tzinfo=dt.UTC)


@cache
def key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def certificate_of(name: str) -> str:
    """Valid from BEGIN to END, both included."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key(name).public_key())
        .serial_number(1)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .sign(key(name), hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def key_of(name: str, protection: KeySerializationEncryption | None = None) -> str:
    made = key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection or NoEncryption())
    return made.decode()
