"""The certificate by which a proxy shows Azure Classic that it may manage a subscription."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def certificate_problem(pem: str, now: dt.datetime) -> str:
    """Why this certificate opens nothing at that moment; empty if it should.

    `pem` holds the certificate, then those that vouch for it if any, and somewhere its private key.
    The answer says nothing of the contents, which are a secret.
    """
    try:
        certificate = x509.load_pem_x509_certificates(pem.encode())[0]
        key = _private_key(pem)
        own = certificate.public_key() == key.public_key() if key else False
    except TypeError:
        return "its private key is encrypted, expected one without a passphrase"
    except (ValueError, UnsupportedAlgorithm):
        return "it cannot be read: expected an X.509 certificate and its private key in PEM form"
    if key is None:
        return "it holds no private key"
    if not own:
        return "its private key belongs to another certificate"
    return _date_problem(certificate, now)


def _private_key(pem: str) -> PrivateKeyTypes | None:
    """The key; None without one, TypeError if a passphrase protects it, ValueError if it is damaged."""
    return load_pem_private_key(pem.encode(), password=None) if "PRIVATE KEY-----" in pem else None


def _date_problem(certificate: x509.Certificate, now: dt.datetime) -> str:
    """Both ends belong to the time in which a certificate is valid (RFC 5280, 4.1.2.5)."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return f"it is not valid before {begin:%Y-%m-%d}"
    if now > end:
        return f"it expired on {end:%Y-%m-%d}"
    return ""
