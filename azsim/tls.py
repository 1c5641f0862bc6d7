"""The simulation's own certificate authority and server certificate, kept in the state folder.

A client trusts `ca.pem` and nothing else, so production code runs over HTTPS unchanged. The
authority's key is thrown away after the server certificate is signed: nobody can issue another.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from azsim.files import write_atomically

_LIFETIME = dt.timedelta(days=825)
_RENEW_BEFORE = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: what clients trust, and what the server shows."""

    ca: Path
    certificate: Path
    key: Path


def ensure_certificates(folder: Path, now: dt.datetime) -> TlsFiles:
    """The folder's certificates; made anew when absent or about to end.

    `now` is real time: the peers' TLS libraries judge validity by their own clocks.
    """
    files = TlsFiles(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    if not _still_valid(files, now):
        _issue(files, now)
    return files


def _still_valid(files: TlsFiles, now: dt.datetime) -> bool:
    if not (files.ca.exists() and files.certificate.exists() and files.key.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return certificate.not_valid_after_utc > now + _RENEW_BEFORE


def _issue(files: TlsFiles, now: dt.datetime) -> None:
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _sign_authority(ca_key, now)
    certificate = _sign_server(server_key.public_key(), authority, ca_key, now)
    key_pem = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(files.key, key_pem, mode=0o600)
    write_atomically(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    write_atomically(files.ca, authority.public_bytes(serialization.Encoding.PEM))


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _blank(key: ec.EllipticCurvePublicKey, subject: str, now: dt.datetime) -> x509.CertificateBuilder:
    """A certificate issued by the simulation's authority, without its usage extensions."""
    return (
        x509.CertificateBuilder()
        .subject_name(_named(subject))
        .issuer_name(_named("azsim authority"))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _sign_authority(key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    return (
        _blank(key.public_key(), "azsim authority", now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _sign_server(
    server_key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> x509.Certificate:
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _blank(server_key, "azsim", now)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
