"""Usable proxies, refusals in words, and streams dealt out in turn."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak import examples, more_in_ci
from tests.subclient.builders import a_source_disk, a_vm, an_attached_disk
from vsa.errors import BadRequest
from vsa.model import Deployment, SourceDisk
from vsa.subclient import Subclient
from vsa.transfer.proxies import (
    Attempt,
    Failure,
    Proxy,
    assign_round_robin,
    next_proxy,
    split_targets,
    usable_proxies,
)

A, B = Proxy(name="proxy-a"), Proxy(name="proxy-b")
DEAD = Proxy(name="proxy-c", refusal="its worker has not been heard of for 5 minutes")


def a_subclient(*proxies: str) -> Subclient:
    return Subclient(name="nightly", proxies=proxies)


def test_a_subclient_that_names_no_proxy_takes_all_that_can_serve() -> None:
    usable, refused = usable_proxies(a_subclient(), [A, DEAD, B])
    assert usable == (A, B)
    assert [(item.name, item.reason) for item in refused] == [(DEAD.name, DEAD.refusal)]


def test_a_subclient_that_names_proxies_takes_those_alone() -> None:
    usable, refused = usable_proxies(a_subclient("PROXY-B", "proxy-x"), [A, B])
    assert usable == (B,)
    assert {item.name: item.reason for item in refused} == {
        "proxy-a": "the subclient does not name it",
        "proxy-x": "the subclient names it, but no such proxy is defined",
    }


@pytest.mark.parametrize("proxies", [[], [DEAD]])
def test_no_proxy_at_all_is_refused_with_every_reason(proxies: list[Proxy]) -> None:
    with pytest.raises(BadRequest) as refused:
        usable_proxies(a_subclient(), proxies)
    expected = DEAD.refusal if proxies else "no proxy is defined"
    assert "subclient nightly has no usable proxy: " in str(refused.value)
    assert expected in str(refused.value)


def test_vms_that_cannot_be_backed_up_are_named_with_the_reason() -> None:
    disks = (an_attached_disk(),)
    fine = a_vm("fine", disks=disks)
    empty = a_vm("empty")
    classic = a_vm("classic", disks=disks, deployment=Deployment.CLASSIC)
    targets, refused = split_targets([fine, empty, classic], [A])
    assert targets == (fine,)
    reasons = {item.name: item.reason for item in refused}
    assert reasons["empty"] == "it has no disks"
    assert "needs a proxy with a management certificate" in reasons["classic"]
    able = Proxy(name="able", management_certificate=True)
    _, refused = split_targets([classic], [A, able])
    assert refused[0].reason == "Azure Classic VMs are not supported by this version"


def test_a_classic_vm_is_refused_with_what_every_proxy_lacks() -> None:
    """And a proxy whose certificate is of no use serves all other VMs."""
    expired = Proxy(
        name="proxy-x", management_certificate=True, certificate_problem="it expired on 2026-01-01"
    )
    disks = (an_attached_disk(),)
    fine, classic = a_vm("fine", disks=disks), a_vm("classic", disks=disks, deployment=Deployment.CLASSIC)
    usable, unusable = usable_proxies(a_subclient(), [A, expired, DEAD])
    targets, refused = split_targets([fine, classic], usable, unusable)
    assert (usable, targets) == ((A, expired), (fine,))
    assert refused[0].name == "classic"
    assert refused[0].reason.endswith(
        "no usable proxy has a valid one: proxy-a: it has no management certificate; "
        "proxy-x: its management certificate is of no use: it expired on 2026-01-01; "
        f"proxy-c: {DEAD.refusal}"
    )


REGIONS = ("westeurope", "West Europe", "northeurope", "eastus2", "")


def near(proxies: list[Proxy], region: str) -> list[str]:
    """The proxies that a disk of this region goes to, in words of the rule."""
    name = region.replace(" ", "").lower()
    own = [proxy.name for proxy in proxies if name and proxy.region.replace(" ", "").lower() == name]
    return own or [proxy.name for proxy in proxies]


some_proxies = st.lists(st.sampled_from(REGIONS), min_size=1, max_size=7).map(
    lambda regions: [Proxy(name=f"p{n}", region=region) for n, region in enumerate(regions)]
)
some_disks = st.lists(st.sampled_from(REGIONS), max_size=40).map(
    lambda regions: [a_source_disk(f"disk-{n}", region=region) for n, region in enumerate(regions)]
)


@given(disks=some_disks, proxies=some_proxies)
def test_streams_are_dealt_out_in_turn_to_the_proxies_of_their_region(
    disks: list[SourceDisk], proxies: list[Proxy]
) -> None:
    assigned = assign_round_robin(disks, proxies)
    assert assigned == assign_round_robin(list(disks), list(proxies))
    assert [item.disk_key for item in assigned] == [disk.key for disk in disks]
    for chosen in {tuple(near(proxies, disk.region)) for disk in disks}:
        given_to = [
            item.proxy
            for item, disk in zip(assigned, disks, strict=True)
            if tuple(near(proxies, disk.region)) == chosen
        ]
        assert given_to == [chosen[turn % len(chosen)] for turn in range(len(given_to))]


def test_six_disks_alternate_between_two_proxies_of_their_region() -> None:
    proxies = [A, Proxy(name="w1", region="West Europe"), B, Proxy(name="w2", region="westeurope")]
    assigned = assign_round_robin([a_source_disk(f"disk-{n}") for n in range(6)], proxies)
    assert [item.proxy for item in assigned] == ["w1", "w2"] * 3


failures = st.sampled_from(Failure)


@more_in_ci
@examples(50, 200, 2000)
@given(
    proxies=some_proxies,
    region=st.sampled_from(REGIONS),
    ends=st.lists(
        st.tuples(failures, st.sets(st.integers(0, 6)), st.integers(0, 5)), min_size=1, max_size=15
    ),
    first=st.integers(0, 6),
)
def test_a_stream_moves_on_until_no_proxy_is_left(
    proxies: list[Proxy], region: str, ends: list[tuple[Failure, set[int], int]], first: int
) -> None:
    """Proxies come and go meanwhile. No stream goes to a refused one, nor round for ever."""
    attempts = [Attempt(proxy=proxies[first % len(proxies)].name, failure=ends[0][0])]
    for failure, refused, turn in ends[1:]:
        now = [
            proxy.model_copy(update={"refusal": "it is paused" if n in refused else ""})
            for n, proxy in enumerate(proxies)
        ]
        found = next_proxy(now, attempts, region=region, turn=turn)
        tried = Counter(attempt.proxy for attempt in attempts)
        untried = [proxy.name for proxy in now if not proxy.refusal and not tried[proxy.name]]
        if found is None:
            assert not untried
            continue
        assert found in now
        assert not found.refusal
        if untried:
            assert found.name in untried
            assert found.name in near([p for p in now if p.name in untried], region)
        else:
            assert [a.failure for a in attempts if a.proxy == found.name] == [Failure.DIED]
        attempts.append(Attempt(proxy=found.name, failure=failure))
    assert max(Counter(attempt.proxy for attempt in attempts).values()) <= 2


THREE = [Proxy(name=name, region="westeurope") for name in ("p0", "p1", "p2")]


def died(*names: str) -> list[Attempt]:
    return [Attempt(proxy=name, failure=Failure.DIED) for name in names]


def moved_to(proxies: list[Proxy], attempts: list[Attempt], *, turn: int = 0) -> str | None:
    found = next_proxy(proxies, attempts, region="westeurope", turn=turn)
    return found.name if found else None


def test_a_stream_moves_to_the_next_proxy_in_turn() -> None:
    assert moved_to(THREE, died("p0")) == "p1"
    assert moved_to(THREE, died("p1")) == "p2"
    assert moved_to(THREE, died("p2")) == "p0"
    assert moved_to(THREE, died("p1", "p2")) == "p0"
    assert moved_to(THREE, died("gone")) == "p0"


def test_the_streams_of_a_dead_proxy_are_dealt_out_among_the_others() -> None:
    assert [moved_to(THREE, died("p1"), turn=turn) for turn in range(4)] == ["p2", "p0", "p2", "p0"]


def test_a_stream_does_not_go_back_at_once_to_where_it_has_just_died() -> None:
    assert {moved_to(THREE[:2], died("p0", "p1"), turn=turn) for turn in range(4)} == {"p0"}
    assert {moved_to(THREE, died("p0", "p1", "p2"), turn=turn) for turn in range(4)} == {"p0", "p1"}


def test_a_stream_leaves_its_region_rather_than_go_back() -> None:
    far = Proxy(name="far", region="eastus")
    assert moved_to([*THREE, far], died("p0", "p1")) == "p2"
    assert moved_to([*THREE, far], died("p0", "p1", "p2")) == "far"
    assert moved_to([*THREE, far], died("p0", "p1", "p2", "far")) == "p0"


def test_the_only_proxy_is_tried_once_more_after_a_death_and_not_after_a_silence() -> None:
    assert moved_to(THREE[:1], died("p0")) == "p0"
    assert moved_to(THREE[:1], died("p0", "p0")) is None
    for failure in (Failure.NOT_STARTED, Failure.REFUSED):
        assert moved_to(THREE[:1], [Attempt(proxy="p0", failure=failure)]) is None
