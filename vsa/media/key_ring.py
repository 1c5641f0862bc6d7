"""The key documents of one media in its store: opening with them, adding to them, sealing new media.

Key documents are created if absent, like every object, and each is opened again, from the store, before
anything relies on it. So a kill at any moment leaves every key that worked, working.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from vsa.errors import BadRequest, KeyNeeded, MediaConflict, MediaDamaged, VsaError
from vsa.media import documents, keys, layout
from vsa.media.cipher import DataKey
from vsa.media.descriptor import MediaDescriptor, new_descriptor
from vsa.media.keys import MAX_KEYS, KeyDocument, MediaName, new_key_document
from vsa.media.sealed_store import SealedStore
from vsa.media.sealing import ID_SIZE, Sealer
from vsa.media.store import Store
from vsa.media.wrapping import WrappingKey

_log = logging.getLogger(__name__)

Random = Callable[[int], bytes]

HOW = (
    "on the command line with --key-file, --passphrase-file, --key-vault or AZURE_VSA_PASSPHRASE, "
    "in Prefect in the Backup Media block"
)


class Opened(NamedTuple):
    """A data key, and the number of the document that gave it."""

    data_key: DataKey
    number: int


class Unlocked(NamedTuple):
    """Sealed media, opened: its sealer, and the number of the key document that opened it."""

    sealer: Sealer
    number: int

    def store(self, below: Store) -> Store:
        """The media's store as plaintext."""
        return SealedStore(below, self.sealer)


class KeyRing:
    """The key documents of one media."""

    def __init__(self, store: Store, media: MediaName) -> None:
        """`store` is the one below the seal: key documents are in clear."""
        self._store = store
        self._media = media

    def documents(self) -> tuple[list[KeyDocument], list[MediaDamaged]]:
        """Those that can be read, by number, and what is wrong with the others."""
        sound: list[KeyDocument] = []
        damaged: list[MediaDamaged] = []
        for number in self._numbers():
            try:
                sound.append(self.document(number))
            except MediaDamaged as error:
                damaged.append(error)
        return sound, damaged

    def unreadable(self, *, first: int) -> dict[int, MediaDamaged]:
        """What is wrong with documents, by number; from `first` on, which those before were retired for, also
        that one is missing before others. A sound one may still be wrapped for a key that nobody has."""
        listed = self._numbers()
        found: dict[int, MediaDamaged] = {}
        for number in sorted({*listed, *range(first, max(listed, default=0))}):
            try:
                self.document(number)
            except MediaDamaged as error:
                found[number] = error
        return found

    def document(self, number: int) -> KeyDocument:
        """One of them; ObjectMissing if there is none, MediaDamaged if it was altered."""
        data = self._store.read(layout.key(number), limit=layout.MAX_DOCUMENT_SIZE)
        return keys.decode(data, number, self._media)

    def open(self, wrapping: WrappingKey | None) -> Opened:
        """The data key, from the newest document that the wrapping key opens.

        KeyNeeded if none was given, WrongKey if it opens no document, MediaDamaged if it opens none and some
        could not be read. One sound document is enough.
        """
        sound, damaged = self.documents()
        if not sound:
            raise damaged[0] if damaged else self._no_keys()
        if wrapping is None:
            ways = " or ".join(sorted({str(document.way) for document in sound}))
            raise KeyNeeded(f"{self._store.location}: this media is sealed; {ways} opens it: give it {HOW}")
        try:
            opened = Opened(*keys.open_data_key(sound, wrapping))
        except BadRequest as error:
            if damaged:
                raise MediaDamaged(f"{damaged[0]}. Of the other key documents: {error}") from error
            raise
        for harm in damaged:
            _log.warning("%s; another key document opened the media", harm)
        return opened

    def add(self, data_key: DataKey, wrapping: WrappingKey, *, now: datetime, random: Random) -> int:
        """Store the data key under one more wrapping key and open it again; the new document's number.

        It comes after all sound ones, which a rotation to it retires; what else has such a name cannot use up
        the numbers.
        """
        number = max((document.number for document in self.documents()[0]), default=-1) + 1
        while True:
            try:
                self.create(data_key, wrapping, number=number, now=now, random=random)
                return number
            except MediaConflict:
                number += 1

    def create(
        self, data_key: DataKey, wrapping: WrappingKey, *, number: int, now: datetime, random: Random
    ) -> None:
        """The same under this number; MediaConflict if somebody else's document has it."""
        document = new_key_document(
            data_key, wrapping, media=self._media, number=number, now=now, random=random
        )
        data = documents.encode(document)
        try:
            self._store.create(document.name, [data])
        except MediaConflict:
            # Network file systems and clients repeat requests: the refused one may follow our own.
            if not self._holds(document.name, data):
                raise
        if keys.unwrap(self.document(number), wrapping) != data_key:
            raise MediaDamaged(f"{self._store.location}: {document.name} reads back with another data key")

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self._store.read(name, limit=layout.MAX_DOCUMENT_SIZE) == data
        except MediaDamaged:
            return False

    def _no_keys(self) -> MediaDamaged:
        return MediaDamaged(
            f"{self._store.location}: the media is sealed and {layout.KEYS} is empty, so nothing opens it: "
            "put a copy of a key document back"
        )

    def _numbers(self) -> list[int]:
        found = map(layout.key_number, self._store.names(layout.KEYS))
        return sorted({number for number in found if number is not None and number < MAX_KEYS})


def unlock(
    store: Store, about: MediaDescriptor, described: bytes, wrapping: WrappingKey | None, *, random: Random
) -> Unlocked:
    """Open the media that `described`, the bytes of media.json, are of. Errors as in `Media.open`."""
    if not about.sealed:
        raise BadRequest(
            f"{store.location}: a key was given, but this media is not sealed: if the one that you sealed "
            "should be here, somebody has put another in its place; if not, give no key"
        )
    ring = KeyRing(store, MediaName(about.id, documents.sha256(described)))
    data_key, number = ring.open(wrapping)
    return Unlocked(Sealer(data_key, bytes.fromhex(about.id), random=random), number)


def seal_new(
    store: Store, wrapping: WrappingKey, *, extent_size: int, now: datetime, random: Random
) -> Sealer:
    """Make sealed media in an empty store; MediaConflict if somebody else just did."""
    sealer = Sealer(DataKey.generate(random), random(ID_SIZE), random=random)
    seal_again(store, sealer, wrapping, extent_size=extent_size, now=now, random=random)
    return sealer


def seal_again(
    store: Store, sealer: Sealer, wrapping: WrappingKey, *, extent_size: int, now: datetime, random: Random
) -> None:
    """The same with the id and data key of media that is made again.

    The key comes first: media.json without a key would be media that nobody can ever open.
    """
    about = new_descriptor(
        extent_size=extent_size, now=now, random=random, media_id=sealer.media_id, sealed=True
    )
    described = documents.encode(about)
    ring = KeyRing(store, MediaName(about.id, documents.sha256(described)))
    ring.create(sealer.data_key, wrapping, number=0, now=now, random=random)
    store.create(layout.MEDIA, [described])


def interrupted_init(store: Store) -> MediaConflict | None:
    """What to tell if all that a place holds is the key of media that never came to be."""
    try:
        alone = set(store.names("")) == {layout.key(0)}
    except VsaError:
        return None
    if not alone:
        return None
    return MediaConflict(
        f"{store.location} holds {layout.key(0)} and nothing else: an earlier `vsa init` was interrupted "
        f"before the media existed, so that key opens nothing. Remove {layout.KEYS} and make the media again"
    )


def orphaned_sealer(store: Store, wrapping: WrappingKey | None, *, random: Random) -> Sealer | None:
    """The sealer of media whose media.json may be lost, by its key documents alone; None if there are none.

    What they say of media.json is believed: what the data key opens proves itself. Errors as `KeyRing.open`
    has them.
    """
    failed: list[VsaError] = []
    belong_to: dict[MediaName, None] = {}
    for name in sorted(name for name in store.names(layout.KEYS) if layout.key_number(name) is not None):
        try:
            belong_to[keys.named_by(store.read(name, limit=layout.MAX_DOCUMENT_SIZE), name)] = None
        except MediaDamaged as error:
            failed.append(error)
    for media in belong_to:
        try:
            data_key, _ = KeyRing(store, media).open(wrapping)
            return Sealer(data_key, bytes.fromhex(media.id), random=random)
        except (MediaDamaged, BadRequest) as error:
            failed.append(error)
    if failed:
        raise failed[-1]
    return None
