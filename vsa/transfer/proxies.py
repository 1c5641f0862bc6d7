"""Proxies, which of them can serve, the round-robin assignment of streams, and where a stream moves. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum

from pydantic import Field

from vsa.errors import BadRequest
from vsa.model import Deployment, Exclusion, Noun, SourceDisk, Vm
from vsa.subclient import Subclient

# A stream whose proxy dies may be what killed it: what kills every proxy must come to an end.
_ATTEMPTS = 2


class Proxy(Noun):
    """A machine that moves data. `refusal` says why it cannot serve now; empty when it can.

    `pool` is the work pool of its worker; a stream that has not begun there after `start_seconds` goes
    elsewhere. `certificate_problem` says why its management certificate is not valid; such a proxy
    still serves VMs of the Resource Manager.
    """

    name: str
    region: str = ""
    pool: str = ""
    streams: int = Field(default=4, ge=1, le=64)
    start_seconds: int = Field(default=180, ge=1)
    management_certificate: bool = False
    certificate_problem: str = ""
    refusal: str = ""


class Assignment(Noun):
    """One disk's stream and the proxy that carries it."""

    disk_key: str
    proxy: str


class Failure(StrEnum):
    """How a proxy failed a stream."""

    REFUSED = "refused"  # it could not serve when its turn came
    NOT_STARTED = "not started"  # the stream did not begin in time
    DIED = "died"  # the stream began, and its process or its machine ended before it did


class Attempt(Noun):
    """A proxy that a stream was given to, in vain; `reason` is for people."""

    proxy: str
    failure: Failure
    reason: str = ""


def usable_proxies(
    subclient: Subclient, proxies: Sequence[Proxy]
) -> tuple[tuple[Proxy, ...], tuple[Exclusion, ...]]:
    """The proxies that may carry this subclient's streams, and why the others may not.

    Raises BadRequest with every reason when none is left: that must be known before a snapshot is made.
    """
    allowed = {name.lower() for name in subclient.proxies}
    refused = [
        Exclusion(name=proxy.name, reason=reason) for proxy in proxies if (reason := _refusal(proxy, allowed))
    ]
    known = {proxy.name.lower() for proxy in proxies}
    refused += [
        Exclusion(name=name, reason="the subclient names it, but no such proxy is defined")
        for name in subclient.proxies
        if name.lower() not in known
    ]
    refusals = {item.name for item in refused}
    usable = tuple(proxy for proxy in proxies if proxy.name not in refusals)
    if not usable:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in refused) or "no proxy is defined"
        raise BadRequest(f"subclient {subclient.name} has no usable proxy: {reasons}")
    return usable, tuple(refused)


def _refusal(proxy: Proxy, allowed: set[str]) -> str:
    if allowed and proxy.name.lower() not in allowed:
        return "the subclient does not name it"
    return proxy.refusal


def split_targets(
    vms: Iterable[Vm], proxies: Sequence[Proxy], unusable: Sequence[Exclusion] = ()
) -> tuple[tuple[Vm, ...], tuple[Exclusion, ...]]:
    """The VMs that can be backed up now by these proxies, and why the others cannot.

    `unusable` are the proxies that were refused for all VMs: one of them may be what a VM lacks.
    """
    targets: list[Vm] = []
    refused: list[Exclusion] = []
    for vm in vms:
        reason = _target_refusal(vm, proxies, unusable)
        if reason:
            refused.append(Exclusion(name=vm.name, reason=reason))
        else:
            targets.append(vm)
    return tuple(targets), tuple(refused)


def _target_refusal(vm: Vm, proxies: Sequence[Proxy], unusable: Sequence[Exclusion]) -> str:
    if vm.deployment is Deployment.CLASSIC:
        lacking = [(proxy.name, reason) for proxy in proxies if (reason := _classic_refusal(proxy))]
        if len(lacking) == len(proxies):
            lacking += [(item.name, item.reason) for item in unusable]
            reasons = "; ".join(f"{name}: {reason}" for name, reason in lacking)
            return (
                "an Azure Classic VM needs a proxy with a management certificate, and no usable proxy has "
                f"a valid one: {reasons}"
            )
        return "Azure Classic VMs are not supported by this version"
    if not vm.disks:
        return "it has no disks"
    return ""


def _classic_refusal(proxy: Proxy) -> str:
    if not proxy.management_certificate:
        return "it has no management certificate"
    if proxy.certificate_problem:
        return f"its management certificate is of no use: {proxy.certificate_problem}"
    return ""


def assign_round_robin(disks: Sequence[SourceDisk], proxies: Sequence[Proxy]) -> tuple[Assignment, ...]:
    """Streams to proxies in turn, in the order given, so that the same input always gives the same plan.

    A disk goes to the proxies of its own region if there are any, else to all; disks that have the same
    proxies to go to take turns among themselves, whatever other disks stand between them.
    """
    turns: Counter[tuple[str, ...]] = Counter()
    assigned = []
    for disk in disks:
        near = tuple(proxy.name for proxy in _nearest(proxies, disk.region))
        assigned.append(Assignment(disk_key=disk.key, proxy=near[turns[near] % len(near)]))
        turns[near] += 1
    return tuple(assigned)


def next_proxy(
    proxies: Sequence[Proxy], attempts: Sequence[Attempt], *, region: str, turn: int = 0
) -> Proxy | None:
    """Where a stream moves that its proxies failed so far, in the order of `attempts`; None: nowhere.

    `proxies` are those that the job may use, in the order of its assignment, each with its refusal as it
    is now. It is the next one in turn after the last that failed: one that was not tried yet if there is any,
    and among those one of the disk's region if there is any. A proxy that died under the stream may be tried
    once more, since the stream's process may have ended alone, but not at once if there is another; one that
    refused or did not start it is not.
    `turn` counts the streams that moved before: with it they are dealt out in turn, not all to one neighbour.
    """
    failed = Counter(attempt.proxy for attempt in attempts)
    hopeless = {attempt.proxy for attempt in attempts if attempt.failure is not Failure.DIED}
    left = [
        proxy
        for proxy in _in_turn_after(attempts[-1].proxy if attempts else "", proxies)
        if not proxy.refusal and proxy.name not in hopeless and failed[proxy.name] < _ATTEMPTS
    ]
    if not left:
        return None
    fewest = min(failed[proxy.name] for proxy in left)
    best = _nearest([proxy for proxy in left if failed[proxy.name] == fewest], region)
    # Where it has just died it dies again, if one disk or one machine is the cause.
    others = [proxy for proxy in best if proxy.name != attempts[-1].proxy] if attempts else best
    best = others or best
    return best[turn % len(best)]


def _in_turn_after(name: str, proxies: Sequence[Proxy]) -> list[Proxy]:
    start = next((place + 1 for place, proxy in enumerate(proxies) if proxy.name == name), 0)
    return [*proxies[start:], *proxies[:start]]


def _nearest(proxies: Sequence[Proxy], region: str) -> Sequence[Proxy]:
    """Those of the region, or all if it has none."""
    wanted = _region_name(region)
    return [proxy for proxy in proxies if wanted and _region_name(proxy.region) == wanted] or proxies


def _region_name(region: str) -> str:
    """`West Europe` is how people write what Azure's APIs call `westeurope`."""
    return region.replace(" ", "").lower()
