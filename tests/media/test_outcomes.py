"""What a stream came to, on its way over the media: said once, repeated at will, never taken on trust."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from tests.media.faulty_store import FaultyStore, Moment
from tests.media.making import KEYS, a_key, flip_bit, media_in, named_key, new_media
from tests.media.test_documents import proven
from tests.subclient.builders import a_source_disk
from tests.transfer.records import a_backup, a_snapshot
from tests.upkeep.keeping import DAY, Keeping
from vsa.errors import MediaConflict, MediaDamaged, MediaUnusable, TryAgainLater
from vsa.media import documents, layout
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.outcomes import StreamOutcome, keep_outcome, kept_outcome

ATTEMPT = UUID(int=7)
DISK = a_source_disk("os")
DONE = StreamOutcome(backup=a_backup(a_snapshot(DISK), disk=DISK))
FAILED = StreamOutcome(error="the disk is unreadable")


@pytest.fixture(params=KEYS, ids=named_key)
def media(request: pytest.FixtureRequest, tmp_path: Path) -> Media:
    return new_media(tmp_path / "media", key=request.param)


def keep(media: Media, outcome: StreamOutcome, attempt: UUID = ATTEMPT) -> None:
    keep_outcome(media, outcome, run="run-1", disk_key=DISK.key, attempt=attempt)


def kept(media: Media, attempt: UUID = ATTEMPT) -> StreamOutcome | None:
    return kept_outcome(media, run="run-1", disk_key=DISK.key, attempt=attempt)


@pytest.mark.parametrize("outcome", [DONE, FAILED], ids=["done", "failed"])
def test_what_was_said_is_heard_and_may_be_said_again(media: Media, outcome: StreamOutcome) -> None:
    assert kept(media) is None
    keep(media, outcome)
    keep(media, outcome)
    assert kept(media) == outcome


def test_each_attempt_speaks_for_itself(media: Media) -> None:
    keep(media, FAILED)
    keep(media, DONE, UUID(int=8))
    assert (kept(media), kept(media, UUID(int=8))) == (FAILED, DONE)


def test_an_attempt_that_said_one_thing_cannot_say_another(media: Media) -> None:
    keep(media, DONE)
    with pytest.raises(MediaConflict):
        keep(media, FAILED)
    assert kept(media) == DONE


@pytest.mark.parametrize("moment", Moment)
def test_a_lost_answer_is_no_lost_word(tmp_path: Path, moment: Moment) -> None:
    new_media(tmp_path / "media")
    lost = [TryAgainLater("no answer came")]
    store = FaultyStore(
        FolderStore(tmp_path / "media"),
        lambda _, method, name: (moment, lost.pop()) if method == "create" and lost else None,
    )
    media = media_in(store)
    with pytest.raises(TryAgainLater):
        keep(media, DONE)
    keep(media, DONE)
    assert kept(media) == DONE


def test_every_flipped_bit_is_noticed(media: Media, tmp_path: Path) -> None:
    keep(media, DONE)
    file = tmp_path / "media" / layout.outcome("run-1", DISK.key, ATTEMPT)
    for bit in range(0, file.stat().st_size * 8, 11):
        flip_bit(file, bit)
        with pytest.raises((MediaDamaged, MediaUnusable)):
            kept(media)
        flip_bit(file, bit)
    assert kept(media) == DONE


def test_a_word_about_another_disk_is_refused(media: Media) -> None:
    other = a_source_disk("data")
    keep(media, StreamOutcome(backup=a_backup(a_snapshot(other), disk=other)))
    with pytest.raises(MediaDamaged, match=f"about disk {other.key}, expected {DISK.key}"):
        kept(media)


def test_on_sealed_media_a_word_cannot_be_moved_to_another_attempt(tmp_path: Path) -> None:
    media = new_media(tmp_path / "media", key=a_key())
    keep(media, DONE)
    names = [layout.outcome("run-1", DISK.key, UUID(int=number)) for number in (7, 8)]
    (tmp_path / "media" / names[1]).write_bytes((tmp_path / "media" / names[0]).read_bytes())
    with pytest.raises(MediaDamaged):
        kept(media, UUID(int=8))


@pytest.mark.parametrize(
    "fields", [{}, {"error": "x", "backup": None, "later": 1}, {"backup": 1}, {"error": 5}]
)
def test_what_a_stranger_wrote_is_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    media = new_media(tmp_path / "media")
    media.store.create(layout.outcome("run-1", DISK.key, ATTEMPT), [proven(fields)])
    with pytest.raises((MediaDamaged, MediaUnusable)):
        kept(media)


def test_a_word_of_any_length_is_read_up_to_the_limit_of_documents(tmp_path: Path) -> None:
    media = new_media(tmp_path / "media")
    long = documents.encode(FAILED) + b" " * layout.MAX_DOCUMENT_SIZE
    media.store.create(layout.outcome("run-1", DISK.key, ATTEMPT), [long])
    with pytest.raises(MediaDamaged):
        kept(media)


def test_a_prune_removes_it_once_its_run_is_over(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    run = keeping.begin()
    name = layout.outcome(run, DISK.key, ATTEMPT)
    keep_outcome(keeping.media, DONE, run=run, disk_key=DISK.key, attempt=ATTEMPT)
    keeping.prune()
    assert name in keeping.objects(), "a run that may be at work keeps everything"
    entry, holds = keeping.written(run, {0: "a"})
    keeping.held[keeping.media.append(entry, run=run)] = holds
    keeping.now += 30 * DAY
    keeping.prune()
    assert name not in keeping.objects()
    keeping.require_sound()
