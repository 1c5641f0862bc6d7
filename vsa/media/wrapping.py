"""Where a wrapping key comes from: a passphrase, a key file, a key in Azure Key Vault.

A *way* is what a key document says of it, without the secret: enough to get the same 32 bytes again, given
the secret. Its salt is fresh for every wrapping, so no wrapping key is used twice.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Protocol

from pydantic import Field

from vsa.errors import BadRequest, MediaUnusable, WrongKey
from vsa.media.cipher import KEY_SIZE, derive
from vsa.model import Noun
from vsa.ranges import KIB, MIB
from vsa.secret import Secret, Unseen

_log = logging.getLogger(__name__)

SALT_SIZE = 32
SHORTEST_PASSPHRASE = 12
LARGEST_KEY_FILE = 64 * KIB
KEY_URL = r"https://[A-Za-z0-9.-]{1,255}(:[0-9]{1,5})?/keys/[0-9A-Za-z-]{1,127}/[0-9a-f]{32}"

Random = Callable[[int], bytes]
Salt = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PassphraseWay(Noun):
    """scrypt (RFC 7914) with N = 2^log2_n. Memory is 128 * r * N bytes, so at most 1 GiB."""

    kind: Literal["passphrase"] = "passphrase"
    kdf: Literal["scrypt"] = "scrypt"
    log2_n: Annotated[int, Field(ge=10, le=20)]
    r: Literal[8] = 8
    p: Annotated[int, Field(ge=1, le=4)] = 1
    salt: Salt

    def __str__(self) -> str:
        return "a passphrase"


class FileWay(Noun):
    """HKDF-SHA256 of a file's bytes: they must be random, for nothing here slows guessing down."""

    kind: Literal["file"] = "file"
    salt: Salt

    def __str__(self) -> str:
        return "a key file"


class VaultWay(Noun):
    """32 random bytes, encrypted with RSA to one version of a key in Azure Key Vault."""

    kind: Literal["key-vault"] = "key-vault"
    key: Annotated[str, Field(pattern=f"^{KEY_URL}$")]
    algorithm: Literal["RSA-OAEP-256"] = "RSA-OAEP-256"
    wrapped: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){256,512}$")]

    def __str__(self) -> str:
        return f"the key {self.key}"


Way = Annotated[PassphraseWay | FileWay | VaultWay, Field(discriminator="kind")]


class WrappingKey(Protocol):
    """A secret that gives wrapping keys."""

    def new_way(self, random: Random) -> Way:
        """Parameters for one new wrapping."""
        ...

    def fits(self, way: Way) -> bool:
        """Whether the way is of this kind of secret: cheap, and no proof."""
        ...

    def key(self, way: Way) -> bytes:
        """The 32 bytes for a way that fits. WrongKey if it can be told already that they are others."""
        ...


class ScryptCost(NamedTuple):
    """What one guess of a passphrase costs: 128 MiB of memory and about half a second, by default."""

    log2_n: int = 17
    p: int = 1


STANDARD_COST = ScryptCost()


class Passphrase(Unseen):
    """A passphrase that people know or a secret store keeps.

    `cost` is for new wrappings. Key documents with a lower one are refused: they were not made by us, and
    would let the media decide how well the passphrase is protected.
    """

    __slots__ = ("_cost", "_text")

    def __init__(self, text: Secret, *, cost: ScryptCost = STANDARD_COST) -> None:
        if not text.reveal():
            raise BadRequest("the passphrase is empty")
        # The same words typed on another system may come as other code points.
        self._text = Secret(unicodedata.normalize("NFC", text.reveal()))
        self._cost = cost

    @classmethod
    def read(cls, path: Path) -> Passphrase:
        """The text of a file, without the line's end; BadRequest if it cannot be read. Warns if others may
        read it, too."""
        data = _read_private(path, "passphrase file")
        try:
            text = data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            # Without its cause: that would quote the passphrase.
            raise BadRequest(
                f"passphrase file {path} is not text in UTF-8: random bytes make a key file"
            ) from None
        return cls(Secret(text))

    def new_way(self, random: Random) -> PassphraseWay:
        """BadRequest if the passphrase is too short to protect anything new."""
        if len(self._text.reveal()) < SHORTEST_PASSPHRASE:
            raise BadRequest(
                f"the passphrase has {len(self._text.reveal())} characters, expected at least "
                f"{SHORTEST_PASSPHRASE}: whoever has the media can try guesses at leisure"
            )
        return PassphraseWay(log2_n=self._cost.log2_n, p=self._cost.p, salt=random(SALT_SIZE).hex())

    def fits(self, way: Way) -> bool:
        return isinstance(way, PassphraseWay)

    def key(self, way: Way) -> bytes:
        assert isinstance(way, PassphraseWay)
        if way.log2_n < self._cost.log2_n:
            raise MediaUnusable(
                f"the key document asks for scrypt with N = 2^{way.log2_n}, expected at least "
                f"2^{self._cost.log2_n}: it was made to weaken the passphrase"
            )
        n = 1 << way.log2_n
        memory = 128 * way.r * (n + way.p + 2)
        return hashlib.scrypt(
            self._text.reveal().encode(),
            salt=bytes.fromhex(way.salt),
            n=n,
            r=way.r,
            p=way.p,
            maxmem=memory + MIB,
            dklen=KEY_SIZE,
        )


class KeyFile(Unseen):
    """The bytes of a key file: random, at least 32 of them. `head -c 32 /dev/urandom` makes one."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        if not KEY_SIZE <= len(data) <= LARGEST_KEY_FILE:
            raise BadRequest(
                f"a key file has {KEY_SIZE} to {LARGEST_KEY_FILE} bytes, found {len(data)}: "
                "head -c 32 /dev/urandom makes one"
            )
        # 32 random bytes have fewer than 12 different values once in 10^13 files; an empty disk has one.
        if len(set(data)) < 12:
            raise BadRequest("the bytes of the key file are not random: head -c 32 /dev/urandom makes one")
        self._data = data

    @classmethod
    def read(cls, path: Path) -> KeyFile:
        """From a file; BadRequest if it cannot be read. Warns if others may read it, too."""
        return cls(_read_private(path, "key file"))

    def new_way(self, random: Random) -> FileWay:
        return FileWay(salt=random(SALT_SIZE).hex())

    def fits(self, way: Way) -> bool:
        return isinstance(way, FileWay)

    def key(self, way: Way) -> bytes:
        assert isinstance(way, FileWay)
        return derive(self._data, salt=bytes.fromhex(way.salt), info=b"azure-vsa key file")


def _read_private(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(LARGEST_KEY_FILE + 1)
    except OSError as error:
        raise BadRequest(f"{what} {path} cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        _log.warning("%s %s is open to other users (mode %o): chmod 600 %s", what, path, mode, path)
    return data


class Vault(Protocol):
    """One key of a key vault, chosen by the operator; raises the errors of Azure's border, and WrongKey."""

    def wrap(self, key: bytes) -> tuple[str, bytes]:
        """The URL of the key's version that was used, and `key` encrypted to it."""
        ...

    def unwrap(self, url: str, wrapped: bytes) -> bytes:
        """What was wrapped. WrongKey unless `url` is a version of this very key."""
        ...


class VaultWrapping(Unseen):
    """Wrapping through Azure Key Vault.

    The vault wraps 32 fresh bytes, and these wrap the data key: RSA-OAEP cannot bind what it encrypts to a
    media, AES-GCM does.
    """

    __slots__ = ("_vault",)

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def new_way(self, random: Random) -> VaultWay:
        url, wrapped = self._vault.wrap(random(KEY_SIZE))
        return VaultWay(key=url, wrapped=wrapped.hex())

    def fits(self, way: Way) -> bool:
        return isinstance(way, VaultWay)

    def key(self, way: Way) -> bytes:
        assert isinstance(way, VaultWay)
        key = self._vault.unwrap(way.key, bytes.fromhex(way.wrapped))
        if len(key) != KEY_SIZE:
            raise WrongKey(f"{way} gives {len(key)} bytes instead of {KEY_SIZE}: it wrapped something else")
        return key
