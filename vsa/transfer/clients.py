"""Client computer entries: what is recorded of every VM that discovery finds. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping

from vsa.media.entries import ClientEntry, ClientState, SeenName
from vsa.model import Vm


def client_entries(
    known: Mapping[str, ClientEntry],
    selected: Iterable[Vm],
    listed: Iterable[Vm],
    *,
    subscription_id: str,
    now: dt.datetime,
) -> Iterator[ClientEntry]:
    """The entries to write: one for each selected VM, and one for each known client that went or returned.

    A client is gone when its subscription was listed and it was not there. It stays, marked so.
    """
    chosen = {vm.key: vm for vm in selected}
    present = {vm.key: vm for vm in listed}
    returned = {
        key: present[key]
        for key, entry in known.items()
        if entry.state is ClientState.GONE and key in present
    }
    for key, vm in (returned | chosen).items():
        yield _seen(known.get(key), vm, now)
    for key, entry in known.items():
        if (
            key not in present
            and entry.state is ClientState.PRESENT
            and entry.vm.subscription_id.lower() == subscription_id.lower()
        ):
            yield entry.model_copy(update={"state": ClientState.GONE})


def _seen(entry: ClientEntry | None, vm: Vm, now: dt.datetime) -> ClientEntry:
    name = SeenName(name=vm.name, resource_id=vm.resource_id, first_seen=now, last_seen=now)
    if entry is None:
        return ClientEntry(vm=vm, names=(name,), first_seen=now, last_seen=now)
    return ClientEntry(vm=vm, names=_names(entry.names, name), first_seen=entry.first_seen, last_seen=now)


def _names(names: tuple[SeenName, ...], seen: SeenName) -> tuple[SeenName, ...]:
    """Names and places in the order they were taken; one that is taken again later is a new row."""
    last = names[-1]
    if last.name == seen.name and last.resource_id.lower() == seen.resource_id.lower():
        return (*names[:-1], last.model_copy(update={"last_seen": seen.last_seen}))
    return (*names, seen)
