"""Sealed objects and packs: every change is found, no nonce comes twice, and no key is ever seen."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import random
import traceback
from collections.abc import Callable, Iterator

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media import second_opener
from tests.media.making import noise, text
from tests.soak import more_in_ci, rounds
from vsa.errors import BadRequest, MediaDamaged, NewerVersion, WrongKey
from vsa.media import cipher as ciphers
from vsa.media.cipher import OVERHEAD, Cipher, DataKey
from vsa.media.envelope import HEADER_SIZE
from vsa.media.frames import Codec, Fingerprinter, fingerprint
from vsa.media.sealing import PackSealer, Sealer
from vsa.ranges import ByteRange

KEY, MEDIA, PACK = bytes(range(150, 182)), bytes(range(100, 116)), bytes(range(200, 216))
NAME = "log/000000000003"
CHUNK = 4096


def frozen(size: int) -> bytes:
    """The random generator of a machine that was cloned: it says the same on every clone."""
    return bytes(range(size))


def a_sealer(
    *,
    key: bytes = KEY,
    media: bytes = MEDIA,
    random: Callable[[int], bytes] = frozen,
    chunk_size: int = CHUNK,
) -> Sealer:
    return Sealer(DataKey(key), media, random=random, chunk_size=chunk_size)


def a_pack(*, key: bytes = KEY, media: bytes = MEDIA, pack: bytes = PACK) -> PackSealer:
    return a_sealer(key=key, media=media).pack(pack)


def flipped(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every byte with one bit of it changed, each time another bit."""
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        yield position, bytes(changed)


def pieces(sealed: bytes) -> list[bytes]:
    step = CHUNK + OVERHEAD
    return [sealed[at : at + step] for at in range(HEADER_SIZE, len(sealed), step)]


# Whole objects


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5])
def test_an_object_comes_back(size):
    plain, sealer = noise(size, size), a_sealer()
    sealed = sealer.seal(NAME, plain)
    assert sealer.open(NAME, sealed) == plain
    assert len(sealed) == HEADER_SIZE + size + OVERHEAD * max(1, -(-size // CHUNK))
    assert b"".join(sealer.sealed(NAME, plain)) == sealed
    assert second_opener.open_object(KEY, MEDIA, NAME, sealed) == plain


def test_a_chunk_is_a_mebibyte_unless_a_test_wants_less():
    sealed = Sealer(DataKey(KEY), MEDIA).seal(NAME, bytes((1 << 20) + 1))
    assert len(sealed) == HEADER_SIZE + (1 << 20) + 1 + 2 * OVERHEAD
    assert a_sealer().open(NAME, sealed) == bytes((1 << 20) + 1)


def test_nothing_of_the_plaintext_is_seen():
    plain = text("a secret word", 3 * CHUNK)
    assert b"secret" not in a_sealer().seal(NAME, plain)
    assert b"secret" not in a_pack().seal_frame(plain, offset=64, raw_length=len(plain))


@pytest.mark.parametrize("size", [0, 100, 2 * CHUNK + 50])
def test_every_changed_byte_of_an_object_is_found_and_called_damage(size):
    sealer = a_sealer()
    sealed = sealer.seal(NAME, noise(1, size))
    for _, changed in flipped(sealed):
        with pytest.raises(MediaDamaged):
            sealer.open(NAME, changed)


@pytest.mark.parametrize("position", range(8, 12))
def test_what_a_newer_version_has_sealed_is_not_called_damage(position):
    """Its seal is over its own header, so nothing opens as this version's."""
    sealer = a_sealer()
    sealed = bytearray(sealer.seal(NAME, noise(1, 100)))
    sealed[position] ^= 2
    sealed[-1] ^= 1
    with pytest.raises(NewerVersion, match="upgrade"):
        sealer.open(NAME, bytes(sealed))


def test_a_wrong_key_is_told_from_damage():
    sealed = a_sealer().seal(NAME, noise(1, 2 * CHUNK))
    with pytest.raises(WrongKey, match="under another key") as wrong:
        a_sealer(key=bytes(32)).open(NAME, sealed)
    with pytest.raises(MediaDamaged, match="seal is broken") as damaged:
        a_sealer().open(NAME, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    assert NAME in str(wrong.value) and NAME in str(damaged.value)


def test_a_key_that_has_opened_something_is_not_wrong_any_more():
    sealer, sealed = a_sealer(), a_sealer().seal(NAME, noise(1, 2 * CHUNK))
    foreign = a_sealer(key=bytes(32)).seal(NAME, b"data")
    newer = sealed[:8] + b"\x02" + sealed[9:-1] + bytes([sealed[-1] ^ 1])
    for other, error in ((foreign, WrongKey), (newer, NewerVersion)):
        with pytest.raises(error):
            sealer.open(NAME, other)
    sealer.open(NAME, sealed)
    for other in (foreign, newer):
        with pytest.raises(MediaDamaged, match="not sealed as the rest of this media is"):
            sealer.open(NAME, other)


def test_the_key_of_another_media_is_a_wrong_key():
    with pytest.raises(WrongKey):
        a_sealer(media=bytes(16)).open(NAME, a_sealer().seal(NAME, b"data"))


@pytest.mark.parametrize("size", [0, 10, CHUNK, 3 * CHUNK, 3 * CHUNK + 5])
def test_every_cut_and_every_addition_is_found(size):
    sealer = a_sealer()
    sealed = sealer.seal(NAME, noise(1, size))
    borders = [HEADER_SIZE + number * (CHUNK + OVERHEAD) for number in range(5)]
    lengths = {
        border + more for border in borders for more in (-1, 0, 1, OVERHEAD - 1, OVERHEAD, OVERHEAD + 1)
    }
    for length in (lengths | set(range(HEADER_SIZE + 40))) - {len(sealed)}:
        with pytest.raises(MediaDamaged):
            sealer.open(NAME, (sealed + bytes(2 * CHUNK))[:length])


def test_an_object_cut_between_chunks_is_found_before_its_size_is_believed():
    sealer = a_sealer()
    cut = sealer.seal(NAME, noise(1, 3 * CHUNK))[: -(CHUNK + OVERHEAD)]
    with pytest.raises(MediaDamaged, match="chunk 1 of 2"):
        sealer.opened(NAME, len(cut), lambda at: cut[at.offset : at.end])


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (0, 0, 2), (0, 1, 1), (2,), (0, 2)])
def test_chunks_that_change_places_are_found(order):
    sealer = a_sealer()
    sealed = sealer.seal(NAME, noise(1, 3 * CHUNK))
    chunks = pieces(sealed)
    with pytest.raises(MediaDamaged):
        sealer.open(NAME, sealed[:HEADER_SIZE] + b"".join(chunks[number] for number in order))


def test_chunks_of_another_object_are_found():
    sealer = a_sealer(random=os.urandom)
    one, other = (sealer.seal(NAME, noise(seed, 2 * CHUNK)) for seed in (1, 2))
    with pytest.raises(MediaDamaged):
        sealer.open(NAME, one[: HEADER_SIZE + CHUNK + OVERHEAD] + pieces(other)[1])


def test_objects_that_change_names_are_found():
    sealer = a_sealer()
    sealed = sealer.seal(NAME, b"entry")
    for other in ("log/000000000004", "log/00000000000", "runs/r/intent.json"):
        with pytest.raises(MediaDamaged, match=other):
            sealer.open(other, sealed)


def test_what_is_not_sealed_is_not_taken_on_sealed_media():
    with pytest.raises(MediaDamaged, match="not sealed"):
        a_sealer().open(NAME, b'{"sha256":"' + b"0" * 200)


@pytest.mark.parametrize("chunk_size", [0, 1, 2048, 4097, 32 << 20, 0xFFFFFFFF])
def test_a_chunk_size_out_of_bounds_costs_no_memory(chunk_size):
    sealed = bytearray(a_sealer().seal(NAME, b"entry"))
    sealed[12:16] = chunk_size.to_bytes(4, "little")
    with pytest.raises(MediaDamaged, match="chunks of"):
        a_sealer().open(NAME, sealed)


@settings(deadline=None)
@given(st.integers(0, 4 * CHUNK), st.data())
def test_a_range_is_what_it_is_of_the_whole(size, data):
    plain, sealer = noise(size, size), a_sealer()
    sealed = sealer.seal(NAME, plain)
    opened = sealer.opened(NAME, len(sealed), lambda at: sealed[at.offset : at.end])
    assert opened.size == size
    for _ in range(3):
        offset = data.draw(st.integers(0, size))
        end = data.draw(st.integers(offset, size))
        assert opened.read(ByteRange(offset, end)) == plain[offset:end]


def test_a_range_fetches_only_the_chunks_that_cover_it():
    sealer = a_sealer()
    sealed = sealer.seal(NAME, noise(1, 5 * CHUNK))
    fetched: list[ByteRange] = []

    def read(at: ByteRange) -> bytes:
        fetched.append(at)
        return sealed[at.offset : at.end]

    opened = sealer.opened(NAME, len(sealed), read)
    fetched.clear()
    assert opened.read(ByteRange(5 * CHUNK - 8, 5 * CHUNK)) == noise(1, 5 * CHUNK)[-8:]
    assert fetched == []
    opened.read(ByteRange(2 * CHUNK - 1, 2 * CHUNK + 1))
    assert [at.length for at in fetched] == [2 * (CHUNK + OVERHEAD)]


@pytest.mark.parametrize("at", [ByteRange(-1, 2), ByteRange(3, 2), ByteRange(0, 6)])
def test_a_range_outside_the_object_is_refused(at):
    sealer = a_sealer()
    sealed = sealer.seal(NAME, b"entry")
    with pytest.raises(BadRequest):
        sealer.opened(NAME, len(sealed), lambda at: sealed[at.offset : at.end]).read(at)


# Packs


def test_a_frame_comes_back():
    pack, stored = a_pack(), noise(1)
    sealed = pack.seal_frame(stored, offset=64, raw_length=65536)
    assert pack.open_frame(memoryview(sealed), offset=64, raw_length=65536, where="frame") == stored
    place = {"offset": 64, "raw_length": 65536, "kind": 0}
    assert second_opener.open_frame(KEY, MEDIA, PACK, bytes(sealed), **place) == stored


def test_every_changed_byte_of_a_frame_is_found():
    pack = a_pack()
    sealed = bytes(pack.seal_frame(noise(1), offset=64, raw_length=4096))
    for _, changed in flipped(sealed):
        with pytest.raises(MediaDamaged, match="frame 7: the seal is broken"):
            pack.open_frame(changed, offset=64, raw_length=4096, where="frame 7")
    for length in range(40):
        with pytest.raises(MediaDamaged):
            pack.open_frame(sealed[:length], offset=64, raw_length=4096, where="frame 7")


@pytest.mark.parametrize(
    ("pack", "place"),
    [
        (a_pack(), {"offset": 4000, "raw_length": 4096}),
        (a_pack(), {"offset": 64, "raw_length": 4095}),
        (a_pack(pack=bytes(16)), {"offset": 64, "raw_length": 4096}),
        (a_pack(media=bytes(16)), {"offset": 64, "raw_length": 4096}),
        (a_pack(key=bytes(32)), {"offset": 64, "raw_length": 4096}),
    ],
)
def test_a_frame_opens_in_its_place_only(pack, place):
    sealed = a_pack().seal_frame(noise(1), offset=64, raw_length=4096)
    with pytest.raises(MediaDamaged):
        pack.open_frame(sealed, **place, where="frame")


def test_a_table_is_no_frame_and_a_frame_no_table():
    pack, table = a_pack(), noise("table")
    sealed_table = pack.seal_table(table, offset=64)
    sealed_frame = pack.seal_frame(table, offset=64, raw_length=len(table))
    with pytest.raises(MediaDamaged):
        pack.open_frame(sealed_table, offset=64, raw_length=len(table), where="frame")
    with pytest.raises(MediaDamaged):
        pack.open_table(sealed_frame, offset=64, commitment=pack.commitment, where="table")


def test_a_table_tells_a_wrong_key_from_damage():
    pack, stranger = a_pack(), a_pack(key=bytes(32))
    sealed = bytes(pack.seal_table(noise("table"), offset=64))
    assert pack.open_table(sealed, offset=64, commitment=pack.commitment, where="pack") == noise("table")
    with pytest.raises(WrongKey, match="under another key"):
        stranger.open_table(sealed, offset=64, commitment=pack.commitment, where="pack")
    for _, commitment in flipped(pack.commitment):
        with pytest.raises(MediaDamaged, match="header has changed"):
            pack.open_table(sealed, offset=64, commitment=commitment, where="pack")
    for _, changed in flipped(sealed):
        with pytest.raises(MediaDamaged, match="seal is broken"):
            pack.open_table(changed, offset=64, commitment=pack.commitment, where="pack")


@pytest.mark.parametrize("place", [(-1, 1), (2**32, 1), (64, 2**32), (64, -1)])
def test_a_place_that_no_pack_has_is_refused(place):
    with pytest.raises(BadRequest, match="packs are smaller"):
        a_pack().seal_frame(b"x", offset=place[0], raw_length=place[1])


# Digests


def test_digests_are_keyed_for_each_media():
    extent = noise(1)
    keyed = a_sealer().fingerprinter.fingerprint(extent)
    assert keyed.digest == second_opener.digest(KEY, MEDIA, extent)
    assert keyed.crc == fingerprint(extent).crc
    others = [a_sealer(media=bytes(16)), a_sealer(key=bytes(32))]
    digests = {each.fingerprinter.fingerprint(extent).digest for each in others}
    assert len(digests | {keyed.digest, fingerprint(extent).digest}) == 4
    assert Fingerprinter().fingerprint(extent).digest == blake3(extent).digest()


def test_a_codec_proves_with_the_digest_of_its_media():
    extent, keyed = text(1), a_sealer().fingerprinter
    codec = Codec(keyed)
    frame = codec.encode(extent)
    assert codec.decode(frame, len(extent), keyed.fingerprint(extent), "frame") == extent
    with pytest.raises(MediaDamaged, match="CRC and digest"):
        codec.decode(frame, len(extent), fingerprint(extent), "frame")


# Nonces


def test_a_nonce_follows_from_what_is_sealed_and_where():
    """A clone that repeats pack ids and salts repeats no nonce, but for the same bytes in the same place."""
    pack, again = a_pack(), a_pack()
    first = pack.seal_frame(noise(1), offset=64, raw_length=4096)
    assert again.seal_frame(noise(1), offset=64, raw_length=4096) == first
    others = [
        again.seal_frame(noise(2), offset=64, raw_length=4096),
        again.seal_frame(noise(1), offset=65, raw_length=4096),
        again.seal_frame(noise(1), offset=64, raw_length=4097),
        again.seal_frame(noise(1)[:-1], offset=64, raw_length=4096),
        again.seal_table(noise(1), offset=64),
    ]
    assert len({bytes(each[:12]) for each in (first, *others)}) == 6


def test_clones_seal_objects_under_other_nonces():
    one, other = a_sealer(), a_sealer()
    nonces = [
        bytes(piece[:12])
        for sealed in (
            one.seal(NAME, noise(1, 2 * CHUNK)),
            other.seal(NAME, noise(2, 2 * CHUNK)),
            other.seal("log/000000000004", noise(1, 2 * CHUNK)),
            other.seal(NAME, noise(1, CHUNK)),
        )
        for piece in pieces(sealed)
    ]
    assert len(set(nonces)) == len(nonces) == 7


@more_in_ci
@pytest.mark.timeout(3600)
def test_no_key_and_nonce_ever_meet_twice_over_many_packs_and_two_forks():
    """F60: one process in two forks, and a clone that repeats the first fork's pack ids with other data."""
    packs = rounds(3_000, 30_000, 1_000_000)
    sealer, seen_packs = a_sealer(), set[bytes]()
    forks = [random.Random(7), random.Random(7), random.Random(8)]
    contents = [random.Random(fork) for fork in range(3)]
    for _ in range(packs):
        sealed: dict[tuple[bytes, bytes], bytes] = {}
        for fork, data in zip(forks, contents, strict=True):
            pack_id = fork.randbytes(16)
            seen_packs.add(pack_id)
            pack = sealer.pack(pack_id)
            for offset in (64, 4096):
                plain = data.choice((b"same everywhere", data.randbytes(16)))
                message = bytes(pack.seal_frame(plain, offset=offset, raw_length=4096))
                # Met twice, they must be one and the same message.
                assert sealed.setdefault((pack_id, message[:12]), message) == message
    assert len(seen_packs) == 2 * packs


def test_the_limits_of_gcm_are_kept(monkeypatch):
    worn = Cipher(KEY, info=b"test")
    worn._sealed = itertools.count(ciphers.MAX_MESSAGES)
    worn.seal(b"the last message", b"")
    with pytest.raises(BadRequest, match="take another pack"):
        worn.seal(b"one too many", b"")
    monkeypatch.setattr(ciphers, "MAX_MESSAGE", 10)
    Cipher(KEY, info=b"test").seal(bytes(10), b"")
    with pytest.raises(BadRequest, match="sealing 11 bytes"):
        Cipher(KEY, info=b"test").seal(bytes(11), b"")


# Known answers: whoever changes one of these bytes changes the format


def test_known_answers():
    sealer = a_sealer()
    assert sealer.commitment.hex() == COMMITMENT
    assert sealer.fingerprinter.fingerprint(b"extent").digest.hex() == DIGEST
    assert sealer.seal(NAME, b"hello").hex() == OBJECT
    pack = sealer.pack(PACK)
    assert pack.seal_frame(b"frame", offset=64, raw_length=4096).hex() == FRAME
    assert pack.seal_table(b"table", offset=97).hex() == TABLE


COMMITMENT = "80e2d2f180be399f282d8db7ca2a6584"
DIGEST = "5f533c0d2c24481b8521a4ad0a17acae02603de7363529ec51359f89d9a1dd77"
OBJECT = (
    "415653415345414c0100000000100000000102030405060708090a0b0c0d0e0f"
    "101112131415161718191a1b1c1d1e1f80e2d2f180be399f282d8db7ca2a6584"
    "bd1290c5d6217d0a19eb7e838094f80c75b1ab93b2a36c85d4968e41b42a97ad"
    "1f"
)
FRAME = "f1f99f88f253d3489c18ef82605e46c7cecb1714eb04d81810a5f8309435dffb6d"
TABLE = "5ebae07dd63d964768df6f931a7e61a606f4c0939ed5744b8b893d1e5429725142"


# What is seen of keys


HOLDERS = {
    "data key": DataKey(KEY),
    "cipher": Cipher(KEY, info=b"test"),
    "sealer": a_sealer(),
    "pack sealer": a_pack(),
    "fingerprinter": Fingerprinter(KEY),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_no_key_is_shown_or_stored(holder):
    shown = f"{holder!r} {holder} {[holder]} {holder!s:>40}"
    assert "***" in shown and not leaked(shown)
    for store in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not to be serialised"):
            store(holder)


def test_no_key_is_in_an_error():
    sealed = a_sealer().seal(NAME, b"entry")
    broken = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for sealer, data in ((a_sealer(), broken), (a_sealer(key=bytes(32)), sealed)):
        with pytest.raises((MediaDamaged, WrongKey)) as caught:
            sealer.open(NAME, data)
        assert not leaked("".join(traceback.format_exception(caught.value)))
        assert not leaked(repr(vars(caught.value)))


def leaked(words: str) -> bool:
    return any(form in words for form in (KEY.hex(), repr(KEY)[2:-1], str(list(KEY))))


def test_data_keys_are_equal_when_their_bytes_are():
    assert DataKey(KEY) == DataKey(KEY) != DataKey(bytes(32))
    assert DataKey.generate(frozen) == DataKey(frozen(32))
    for wrong in (b"", bytes(16), bytes(33)):
        with pytest.raises(BadRequest, match="has 32 bytes"):
            DataKey(wrong)


@pytest.mark.parametrize("wrong", [b"", bytes(15), bytes(17)])
def test_ids_have_one_length_so_that_none_runs_into_its_neighbour(wrong):
    with pytest.raises(BadRequest, match="media id"):
        a_sealer(media=wrong)
    with pytest.raises(BadRequest, match="pack id"):
        a_sealer().pack(wrong)
