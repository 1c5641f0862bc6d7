"""`keys/<n>`: the data key of sealed media, wrapped (docs/media-format.md, "Keys").

A data key is made once and never changes. What opens it may: a passphrase, a key file, a key in Azure Key
Vault. Each of these gives a *wrapping key*, and each `keys/<n>` holds the data key under one of them. To
change the wrapping key is to write the next document, and no data.

Key documents are read before anything is authenticated, so they are checked for damage by their own sha256,
and every number in them is bounded before it costs memory or time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, Field

from vsa.errors import BadRequest, MediaDamaged, WrongKey
from vsa.media import documents, layout
from vsa.media.cipher import Cipher, DataKey
from vsa.media.wrapping import FileWay, PassphraseWay, VaultWay, Way, WrappingKey
from vsa.model import Noun, Sha256, utc

MAX_KEYS = 1000
"""Key documents on one media; a reader never looks for more."""

WrappedKey = Annotated[str, Field(pattern=r"^[0-9a-f]{120}$")]
MediaId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Random = Callable[[int], bytes]


class MediaName(NamedTuple):
    """What a key document belongs to: the media's id, and the sha256 of its media.json.

    media.json is in clear and says what the media is; bound into every key document, it cannot be
    exchanged without being noticed before anything else is believed.
    """

    id: str
    descriptor: str


class KeyDocument(Noun):
    """The data key under one wrapping key. `wrapped` is nonce | ciphertext | tag."""

    format: Literal[1] = 1
    media: MediaId
    descriptor: Sha256
    number: Annotated[int, Field(ge=0, lt=MAX_KEYS)]
    way: Way
    wrapped: WrappedKey
    created: AwareDatetime

    @property
    def name(self) -> str:
        return layout.key(self.number)


def new_key_document(
    data_key: DataKey,
    wrapping_key: WrappingKey,
    *,
    media: MediaName,
    number: int,
    now: datetime,
    random: Random,
) -> KeyDocument:
    """The data key wrapped anew, and proven: what cannot be opened again is never returned."""
    if number >= MAX_KEYS:
        raise BadRequest(f"key document {number}: a media has at most {MAX_KEYS}; seal new media")
    way = wrapping_key.new_way(random)
    bare = KeyDocument(
        media=media.id,
        descriptor=media.descriptor,
        number=number,
        way=way,
        wrapped="0" * 120,
        created=utc(now),
    )
    # Asked for anew, not kept from making the way: Key Vault wraps with keys that it will not unwrap with.
    cipher = _cipher(wrapping_key.key(way))
    return bare.model_copy(update={"wrapped": cipher.seal(data_key.reveal(), _context(bare)).hex()})


def named_by(data: bytes, name: str) -> MediaName:
    """The media that a key document says it belongs to; MediaDamaged if it was altered."""
    document = documents.decode(data, KeyDocument, name)
    return MediaName(document.media, document.descriptor)


def decode(data: bytes, number: int, media: MediaName) -> KeyDocument:
    """`keys/<number>` of this media; MediaDamaged if it was altered or is another one's."""
    document = documents.decode(data, KeyDocument, layout.key(number))
    found = (document.media, document.number)
    if found != (media.id, number):
        raise MediaDamaged(
            f"{layout.key(number)} is key document {document.number} of media {document.media}, "
            f"expected {number} of {media.id}: objects have changed places"
        )
    if document.descriptor != media.descriptor:
        raise MediaDamaged(
            f"{layout.MEDIA} has sha256 {media.descriptor}, but {document.name} was made for one with "
            f"{document.descriptor}: one of them was exchanged"
        )
    return document


def open_data_key(existing: Sequence[KeyDocument], wrapping_key: WrappingKey) -> tuple[DataKey, int]:
    """The data key from the newest document that the wrapping key opens, and that document's number.

    WrongKey if it opens none.
    """
    fitting = [document for document in reversed(existing) if wrapping_key.fits(document.way)]
    refused: list[str] = []
    for document in fitting:
        try:
            return unwrap(document, wrapping_key), document.number
        except WrongKey as error:
            refused.append(str(error))
    if refused:
        raise WrongKey("; ".join(refused))
    ways = " or ".join(sorted({str(document.way) for document in existing})) or "nothing: it has no keys"
    raise WrongKey(f"this media is opened by {ways}, and something else was given")


def unwrap(document: KeyDocument, wrapping_key: WrappingKey) -> DataKey:
    """The data key of one document. WrongKey if the wrapping key is another; its errors, if it has any."""
    context = _context(document)
    cipher = _cipher(wrapping_key.key(document.way))
    wrapped = bytes.fromhex(document.wrapped)
    wrong = WrongKey(
        f"{document.name}: the key given is not the one that it was wrapped with ({document.way}); "
        "the document's checksum holds, so it is not damaged"
    )
    try:
        plain = cipher.open(wrapped, context, document.name)
    except MediaDamaged:
        raise wrong from None
    # GCM does not commit to its key: a forged document may open under many passphrases, and so tell an
    # onlooker which guesses were right. Sealed again it must come out the same, nonce and all.
    if cipher.seal(plain, context) != wrapped:
        raise wrong
    return DataKey(plain)


def _cipher(wrapping_key: bytes) -> Cipher:
    return Cipher(wrapping_key, info=b"azure-vsa wrap")


def _context(document: KeyDocument) -> bytes:
    """What is sealed together with the data key: lines of text, so that no other reader needs our JSON."""
    belongs_to = (document.media, document.descriptor, str(document.number))
    return "\n".join(["azure-vsa key 1", *belongs_to, *_facts(document.way)]).encode()


def _facts(way: Way) -> list[str]:
    match way:
        case PassphraseWay():
            return [way.kind, way.kdf, str(way.log2_n), str(way.r), str(way.p), way.salt]
        case FileWay():
            return [way.kind, way.salt]
        case VaultWay():
            return [way.kind, way.key, way.algorithm, way.wrapped]
