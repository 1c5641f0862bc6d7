"""A cloud store over a network that fails: what is unclear is said to be so, and nothing is half done."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.media.making import EXTENT, NOW, back_up, noise, read_point, text
from tests.media.stores.conftest import HASTY, ONCE, Site
from tests.media.stores.faulty_network import Fault, FaultyNetwork, faulty_network
from vsa.errors import MediaConflict, MediaUnusable, ObjectMissing, TryAgainLater
from vsa.media.cloud import CloudStore, Patience
from vsa.media.media import Media
from vsa.media.retrying import DELAYS, LONG_ENOUGH, RetryingStore
from vsa.media.store import Store
from vsa.ranges import ByteRange
from vsa.stop import waiting

PACK = f"runs/r1/packs/{'ab' * 16}.pack"
BYTES = noise("pack", 300_000)
PATIENT = replace(ONCE, retries=3)


@pytest.fixture
def network(cloud: Site) -> Iterator[FaultyNetwork]:
    with faulty_network(cloud.origin) as network:
        yield network


@pytest.fixture
def store(cloud: Site, network: FaultyNetwork) -> CloudStore:
    return cloud.behind(network.origin).store()


def always(fault: Fault) -> Callable[[str, str], Fault]:
    return lambda _method, _target: fault


def once(fault: Fault, method: str) -> Callable[[str, str], Fault]:
    """The first request of this method meets the fault; the others do not."""
    left, lock = [fault], threading.Lock()

    def script(asked: str, _target: str) -> Fault:
        with lock:
            return left.pop() if asked == method and left else Fault.NONE

    return script


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.BAD_GATEWAY])
def test_a_create_whose_answer_is_lost_is_unclear_and_not_repeated(cloud, network, fault):
    """A repetition by the client would be refused by its own first success."""
    store = cloud.behind(network.origin).store(patience=PATIENT)
    network.script = always(fault)
    with pytest.raises(TryAgainLater, match="the outcome is unknown"):
        store.create(PACK, [BYTES])
    assert [method for method, _ in network.requests] == ["PUT"]
    assert cloud.store().read(PACK) == BYTES
    network.script = always(Fault.NONE)
    with pytest.raises(MediaConflict):
        store.create(PACK, [b"again"])


def test_a_create_that_is_cut_stores_nothing(cloud, network, store):
    network.script = always(Fault.CUT_REQUEST)
    with pytest.raises(TryAgainLater, match="the outcome is unknown"):
        store.create(PACK, [BYTES])
    with pytest.raises(ObjectMissing):
        cloud.store().read(PACK)
    network.script = always(Fault.NONE)
    store.create(PACK, [BYTES])
    assert store.read(PACK) == BYTES


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.CUT_ANSWER, Fault.STALL])
def test_an_answer_that_does_not_come_whole_is_no_answer(cloud, network, fault):
    cloud.store().create(PACK, [BYTES])
    store = cloud.behind(network.origin).store(patience=HASTY if fault is Fault.STALL else ONCE)
    network.script = always(fault)
    for call in (lambda: store.read(PACK), lambda: store.read(PACK, ByteRange(1000, 200_000))):
        with pytest.raises(TryAgainLater, match=PACK):
            call()


def test_a_stalled_service_is_given_up(cloud, network):
    store = cloud.behind(network.origin).store(patience=HASTY)
    network.script = always(Fault.STALL)
    for call in (
        lambda: store.create(PACK, [b"x"]),
        lambda: store.size(PACK),
        lambda: list(store.names("log/")),
        lambda: list(store.folders("runs/")),
        lambda: store.delete(PACK),
    ):
        with pytest.raises(TryAgainLater):
            call()


def test_a_service_that_is_not_there_is_worth_another_attempt(cloud, network):
    store = cloud.behind(network.origin).store()
    network.stop()
    with pytest.raises(TryAgainLater, match=r"check .* the endpoint and the network"):
        store.read(PACK)


def test_a_read_is_repeated_until_it_comes_whole(cloud, network):
    cloud.store().create(PACK, [BYTES])
    store = cloud.behind(network.origin).store(patience=PATIENT)
    for fault in (Fault.LOSE_ANSWER, Fault.CUT_ANSWER):
        network.script = once(fault, "GET")
        assert store.read(PACK, ByteRange(1000, 200_000)) == BYTES[1000:200_000]


def test_a_deletion_whose_answer_was_lost_is_done_by_repeating_it(cloud, network, store):
    cloud.store().create(PACK, [BYTES])
    network.script = always(Fault.LOSE_ANSWER)
    with pytest.raises(TryAgainLater):
        store.delete(PACK)
    network.script = always(Fault.NONE)
    store.delete(PACK)
    assert list(store.names("")) == []


def test_a_service_that_ignores_the_condition_is_refused_for_writing(network, store):
    """Every request arrives without If-None-Match, as at services that do not know it for PUT."""
    network.script = always(Fault.STRIP_CONDITION)
    with pytest.raises(MediaUnusable, match=r"8 of 8 concurrent writers .* exactly one must win"):
        store.prepare_for_writing()


def test_a_service_that_checks_before_it_writes_is_refused_for_writing(network, store):
    """Two creates at once both find nothing, and both win; one that comes later is refused."""
    puts = itertools.count()
    network.script = lambda method, _target: (
        Fault.STRIP_CONDITION if method == "PUT" and next(puts) < 8 else Fault.NONE
    )
    with pytest.raises(MediaUnusable, match=r"8 of 8 concurrent writers created the same object; exactly"):
        store.prepare_for_writing()


def test_a_service_that_ignores_the_condition_later_on_is_refused_for_writing(network, store):
    """As one that checks only while creates are under way."""
    puts = itertools.count()
    network.script = lambda method, _target: (
        Fault.STRIP_CONDITION if method == "PUT" and next(puts) >= 8 else Fault.NONE
    )
    with pytest.raises(MediaUnusable, match="a later one did it again"):
        store.prepare_for_writing()


def test_a_probe_without_an_answer_proves_nothing(network, store):
    network.script = once(Fault.LOSE_ANSWER, "PUT")
    with pytest.raises(TryAgainLater):
        store.prepare_for_writing()


def test_a_backup_survives_the_lost_answers_to_its_commits(cloud, network, tmp_path):
    """The log reads the slot back: its own entry is there."""
    media = Media.create(cloud.location, extent_size=EXTENT, now=NOW, access=cloud.access)
    store = cloud.behind(network.origin).store(patience=PATIENT)
    network.script = lambda method, target: (
        Fault.LOSE_ANSWER if method == "PUT" and "/log/" in target else Fault.NONE
    )
    slot = back_up(Media(store, write=True), {0: noise(0), 5: text(5)}, run="r1", scratch=tmp_path)
    assert read_point(Media.open(cloud.location, access=cloud.access), slot) == {0: noise(0), 5: text(5)}
    assert media.view().head == 1


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.CUT_REQUEST])
def test_a_pack_whose_upload_was_unclear_is_stored_once(cloud, network, store, fault):
    """Whether the first request did its work or not: the second finds out."""
    network.script = once(fault, "PUT")
    waited: list[float] = []
    RetryingStore(store, sleep=waited.append).create(PACK, [BYTES[:9], BYTES[9:]])
    assert waited == [0.5]
    assert cloud.store().read(PACK) == BYTES


def test_a_repeated_create_does_not_take_anothers_object_for_its_own(cloud, network, store):
    for name, theirs in ((PACK, b"x" * len(BYTES)), ("log/000000000000", b"short")):
        cloud.store().create(name, [theirs])
        network.script = once(Fault.LOSE_ANSWER, "PUT")
        with pytest.raises(MediaConflict):
            RetryingStore(store, sleep=lambda _: None).create(name, [BYTES])
        assert cloud.store().read(name) == theirs


def test_repetitions_of_a_create_end(network, store):
    network.script = always(Fault.CUT_REQUEST)
    waited: list[float] = []
    with pytest.raises(TryAgainLater):
        RetryingStore(store, delays=(1, 2), sleep=waited.append).create(PACK, [BYTES])
    assert waited == [1, 2]


CALLS: dict[str, Callable[[Store], object]] = {
    "read": lambda store: store.read(PACK),
    "read a part": lambda store: store.read(PACK, ByteRange(1000, 200_000)),
    "read what is not there": lambda store: missing(lambda: store.read("log/000000000009")),
    "size": lambda store: store.size(PACK),
    "size of what is not there": lambda store: missing(lambda: store.size("log/000000000009")),
    "names": lambda store: list(store.names("runs/")),
    "folders": lambda store: list(store.folders("runs/")),
    "delete": lambda store: store.delete("log/000000000009"),
    "prove": lambda store: store.prepare_for_writing(),
}


def missing(call: Callable[[], object]) -> str:
    with pytest.raises(ObjectMissing) as found:
        call()
    return str(found.value)


@pytest.mark.parametrize("call", CALLS)
def test_every_call_is_repeated_whatever_became_of_its_answer(cloud, network, call):
    """The client does not repeat a read whose refusal or list breaks off, nor a delete."""
    cloud.store().create(PACK, [BYTES])
    expected = CALLS[call](cloud.store())
    through = RetryingStore(cloud.behind(network.origin).store(), sleep=lambda _: None)
    faults = (
        Fault.SLOW_DOWN,
        Fault.TOO_MANY_REQUESTS,
        Fault.CUT_REQUEST,
        Fault.CUT_ANSWER,
        Fault.LOSE_ANSWER,
    )
    for fault in faults:
        network.script = first(fault)
        assert CALLS[call](through) == expected, fault


def first(fault: Fault) -> Callable[[str, str], Fault]:
    """The first request meets the fault, the others do not."""
    count = itertools.count()
    return lambda _method, _target: Fault.NONE if next(count) else fault


@pytest.mark.parametrize(("method", "fault"), [("GET", Fault.CUT_ANSWER), ("PUT", Fault.LOSE_ANSWER)])
def test_a_place_for_new_media_is_looked_at_and_proven_whatever_became_of_an_answer(
    cloud, network, method, fault
):
    """The list of what is there, and one of the writes that prove the condition."""
    network.script = once(fault, method)
    waited: list[float] = []
    with waiting(waited.append):
        made = cloud.behind(network.origin).make()
    # The proof is of many writers at once: a busy server may lose another answer of its own.
    assert DELAYS[0] in waited
    assert list(made.names("")) == []


def test_a_call_that_took_long_enough_is_not_repeated(network, store):
    """Its client has repeated it, or has waited for a service that says nothing."""
    network.script = always(Fault.LOSE_ANSWER)
    waited: list[float] = []
    times = iter([0.0, LONG_ENOUGH - 1, LONG_ENOUGH + 1])
    with pytest.raises(TryAgainLater):
        RetryingStore(store, sleep=waited.append, clock=lambda: next(times)).read(PACK)
    assert waited == [DELAYS[0]]


class Breaking:
    """A store of ten names whose lists end after so many of them, the first after the first number."""

    def __init__(self, *after: int) -> None:
        self.after = list(after)

    def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
        names = "abcdefghij"
        if not self.after:
            yield from names
            return
        yield from names[: self.after.pop(0)]
        raise TryAgainLater("the rest did not come")


def test_a_list_that_breaks_off_in_the_middle_comes_anew_from_its_beginning():
    through = RetryingStore(Breaking(1), sleep=lambda _: None)
    assert list(through.names("")) == ["a", *"abcdefghij"]


def test_a_list_that_gets_on_is_repeated_however_often_and_one_that_does_not_is_given_up():
    waited: list[float] = []
    through = RetryingStore(Breaking(1, 2, 3, 4, 5, 6), delays=(1, 2), sleep=waited.append)
    assert list(through.names(""))[-10:] == list("abcdefghij")
    assert waited == [1] * 6
    waited.clear()
    with pytest.raises(TryAgainLater):
        list(RetryingStore(Breaking(5, 4, 5, 5), delays=(1, 2), sleep=waited.append).names(""))
    assert waited == [1, 2]


def test_a_list_is_repeated_however_long_its_names_are_looked_at():
    now = [0.0]
    taken: list[str] = []
    for name in RetryingStore(Breaking(3), sleep=lambda _: None, clock=lambda: now[0]).names(""):
        taken.append(name)
        now[0] += LONG_ENOUGH
    assert "".join(taken) == "abcabcdefghij"


def test_a_list_that_broke_off_after_a_long_silence_is_not_repeated():
    now, taken = [0.0], []

    class Silent(Breaking):
        def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
            yield "a"
            now[0] += LONG_ENOUGH + 1
            raise TryAgainLater("the rest did not come")

    with pytest.raises(TryAgainLater):
        for name in RetryingStore(Silent(), sleep=lambda _: None, clock=lambda: now[0]).names(""):
            taken.append(name)
    assert taken == ["a"]


def test_a_request_may_take_longer_the_more_it_carries():
    patience = Patience(answer_seconds=60, slowest_bytes_per_second=1 << 20)
    assert patience.seconds_for(1000) == 60
    assert 60 + 64 <= patience.seconds_for(64 << 20) <= 2 * (60 + 64)
    assert 60 + 5000 <= patience.seconds_for(5000 << 20) <= 2 * (60 + 5000)
