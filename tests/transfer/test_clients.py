"""Client computer entries over a VM's life: names, places, disappearance, return."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.subclient.builders import a_vm
from tests.transfer.records import NOW
from vsa.media.entries import ClientEntry, ClientState
from vsa.model import Vm
from vsa.transfer.clients import client_entries

SUBSCRIPTION = a_vm().subscription_id


def seen(
    known: dict[str, ClientEntry],
    listed: Sequence[Vm],
    selected: Sequence[Vm] | None = None,
    *,
    day: int = 0,
    subscription: str = SUBSCRIPTION,
) -> dict[str, ClientEntry]:
    """What is known after a job that saw this, `day` days later."""
    entries = client_entries(
        known,
        listed if selected is None else selected,
        listed,
        subscription_id=subscription,
        now=NOW + dt.timedelta(days=day),
    )
    return known | {entry.vm.key: entry for entry in entries}


def test_a_vm_that_is_seen_first_has_one_name() -> None:
    (client,) = seen({}, [a_vm()]).values()
    assert client.state is ClientState.PRESENT
    assert client.first_seen == client.last_seen == NOW
    assert [name.name for name in client.names] == ["web-01"]


def test_only_selected_vms_become_clients() -> None:
    assert seen({}, [a_vm()], selected=[]) == {}


def test_names_are_kept_in_the_order_in_which_they_were_taken() -> None:
    known: dict[str, ClientEntry] = {}
    for day, name in enumerate(["old", "old", "new", "old"]):
        known = seen(known, [a_vm(name, vm_id="one")], day=day)
    (client,) = known.values()
    spans = [(name.name, (name.first_seen - NOW).days, (name.last_seen - NOW).days) for name in client.names]
    assert spans == [("old", 0, 1), ("new", 2, 2), ("old", 3, 3)]
    assert client.first_seen == NOW
    assert (client.last_seen - NOW).days == 3


def test_a_move_to_another_group_is_remembered_under_the_same_name() -> None:
    known = seen({}, [a_vm(vm_id="one")])
    known = seen(known, [a_vm(vm_id="one", resource_group="rg-other")], day=1)
    (client,) = known.values()
    assert [name.name for name in client.names] == ["web-01", "web-01"]
    assert "rg-other" in client.names[1].resource_id
    # Azure writes resource groups in upper or lower case as it pleases.
    shouted = a_vm(vm_id="one", resource_group="RG-OTHER")
    assert len(seen(known, [shouted], day=2)[client.vm.key].names) == 2


def test_a_vm_that_is_gone_stays_as_it_was_last_seen() -> None:
    known = seen(seen({}, [a_vm()]), [], day=1)
    (client,) = known.values()
    assert client.state is ClientState.GONE
    assert client.last_seen == NOW
    assert list(client_entries(known, [], [], subscription_id=SUBSCRIPTION, now=NOW)) == []


def test_a_vm_of_another_subscription_is_not_gone() -> None:
    known = seen({}, [a_vm()])
    assert seen(known, [], subscription="another", day=1) == known
    shouted = seen(known, [], subscription=SUBSCRIPTION.upper(), day=1)
    assert next(iter(shouted.values())).state is ClientState.GONE


def test_a_vm_that_comes_back_is_present_whether_or_not_it_is_selected() -> None:
    gone = seen(seen({}, [a_vm()]), [], day=1)
    for selected in ([a_vm()], []):
        (client,) = seen(gone, [a_vm()], selected=selected, day=2).values()
        assert client.state is ClientState.PRESENT
        assert (client.last_seen - NOW).days == 2


def test_a_known_vm_that_is_not_selected_any_more_is_not_written_again() -> None:
    known = seen({}, [a_vm()])
    assert list(client_entries(known, [], [a_vm()], subscription_id=SUBSCRIPTION, now=NOW)) == []


names = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.dictionaries(st.sampled_from(["one", "two"]), names), max_size=8))
def test_no_client_is_ever_lost_and_its_times_never_go_back(days: list[dict[str, str]]) -> None:
    known: dict[str, ClientEntry] = {}
    ever: set[str] = set()
    for day, vms in enumerate(days):
        listed = [a_vm(name, vm_id=vm_id) for vm_id, name in vms.items()]
        known = seen(known, listed, day=day)
        present = {vm.key for vm in listed}
        ever |= present
        assert set(known) == ever
        for key, client in known.items():
            assert (client.state is ClientState.PRESENT) == (key in present)
            moments = [moment for name in client.names for moment in (name.first_seen, name.last_seen)]
            assert moments == sorted(moments)
            assert (client.first_seen, client.last_seen) == (moments[0], moments[-1])
