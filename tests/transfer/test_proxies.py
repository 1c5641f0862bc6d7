"""Usable proxies, refusals in words, and streams dealt out in turn."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.subclient.builders import a_source_disk, a_vm, an_attached_disk
from vsa.errors import BadRequest
from vsa.model import Deployment
from vsa.subclient import Subclient
from vsa.transfer.proxies import Proxy, assign_round_robin, split_targets, usable_proxies

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


@given(
    disks=st.integers(0, 40).map(lambda count: [a_source_disk(f"disk-{n}") for n in range(count)]),
    proxies=st.integers(1, 7).map(lambda count: [Proxy(name=f"p{n}") for n in range(count)]),
)
def test_streams_are_dealt_out_in_turn(disks: list, proxies: list[Proxy]) -> None:
    assigned = assign_round_robin(disks, proxies)
    assert [item.disk_key for item in assigned] == [disk.key for disk in disks]
    assert [item.proxy for item in assigned[: len(proxies)]] == [p.name for p in proxies][: len(disks)]
    loads = Counter(item.proxy for item in assigned)
    counts = [loads[proxy.name] for proxy in proxies]
    assert max(counts) - min(counts) <= 1
    assert counts == sorted(counts, reverse=True)
