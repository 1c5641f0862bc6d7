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
    """The entries to write: one for each selected VM, and one for each known client that has gone.

    A client is gone when its subscription was listed and it was not there. It stays, marked so.
    """
    for vm in selected:
        yield _seen(known.get(vm.key), vm, now)
    present = {vm.key for vm in listed}
    for key, entry in known.items():
        if (
            key not in present
            and entry.state is ClientState.PRESENT
            and entry.vm.subscription_id.lower() == subscription_id.lower()
        ):
            yield entry.model_copy(update={"state": ClientState.GONE})


def _seen(entry: ClientEntry | None, vm: Vm, now: dt.datetime) -> ClientEntry:
    if entry is None:
        name = SeenName(name=vm.name, first_seen=now, last_seen=now)
        return ClientEntry(vm=vm, names=(name,), first_seen=now, last_seen=now)
    return ClientEntry(
        vm=vm, names=_names(entry.names, vm.name, now), first_seen=entry.first_seen, last_seen=now
    )


def _names(names: tuple[SeenName, ...], name: str, now: dt.datetime) -> tuple[SeenName, ...]:
    """Names in the order they were taken; a name taken again later is a new row."""
    if names[-1].name == name:
        return (*names[:-1], names[-1].model_copy(update={"last_seen": now}))
    return (*names, SeenName(name=name, first_seen=now, last_seen=now))
