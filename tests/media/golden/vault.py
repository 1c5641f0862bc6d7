"""The key of a vault that does not exist: it wraps and unwraps as a key in Azure Key Vault does."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from vsa.media.wrapping import VaultWay, Way

KEY_URL = f"https://golden.vault.azure.net/keys/media/{'5' * 32}"
E = 65_537
BITS = 1024
"""Of each of the two primes."""


class Vault:
    """A `WrappingKey`, from two primes."""

    def __init__(self, p: int, q: int) -> None:
        self._primes = p, q
        d = pow(E, -1, (p - 1) * (q - 1))
        numbers = rsa.RSAPrivateNumbers(
            p=p,
            q=q,
            d=d,
            dmp1=rsa.rsa_crt_dmp1(d, p),
            dmq1=rsa.rsa_crt_dmq1(d, q),
            iqmp=rsa.rsa_crt_iqmp(p, q),
            public_numbers=rsa.RSAPublicNumbers(E, p * q),
        )
        self._private = numbers.private_key()

    @classmethod
    def of_seed(cls, seed: int) -> Self:
        draw = random.Random(seed)
        return cls(_prime(draw), _prime(draw))

    @classmethod
    def saved(cls, path: Path) -> Self:
        return cls(*(int(digits, 16) for digits in json.loads(path.read_text())["primes"]))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"primes": [f"{prime:x}" for prime in self._primes]}, indent=2) + "\n")

    def new_way(self, random: Callable[[int], bytes]) -> Way:
        wrapped = self._private.public_key().encrypt(random(32), _oaep())
        return VaultWay(key=KEY_URL, wrapped=wrapped.hex())

    def fits(self, way: Way) -> bool:
        return isinstance(way, VaultWay) and way.key == KEY_URL

    def key(self, way: Way) -> bytes:
        assert isinstance(way, VaultWay)
        return self._private.decrypt(bytes.fromhex(way.wrapped), _oaep())


def _oaep() -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def _prime(draw: random.Random) -> int:
    """One that fits E, with the two highest bits set so that the product is as long as it should be."""
    while True:
        number = draw.getrandbits(BITS) | 3 << BITS - 2 | 1
        if number % E != 1 and all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7)):
            return number
