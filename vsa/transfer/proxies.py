"""Proxies, which of them can serve, and the round-robin assignment of streams. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from vsa.errors import BadRequest
from vsa.model import Deployment, Exclusion, Noun, SourceDisk, Vm
from vsa.subclient import Subclient


class Proxy(Noun):
    """A machine that moves data. `refusal` says why it cannot serve now; empty when it can."""

    name: str
    region: str = ""
    streams: int = Field(default=4, ge=1, le=64)
    management_certificate: bool = False
    refusal: str = ""


class Assignment(Noun):
    """One disk's stream and the proxy that carries it."""

    disk_key: str
    proxy: str


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
    vms: Iterable[Vm], proxies: Sequence[Proxy]
) -> tuple[tuple[Vm, ...], tuple[Exclusion, ...]]:
    """The VMs that can be backed up now, and why the others cannot."""
    targets: list[Vm] = []
    refused: list[Exclusion] = []
    for vm in vms:
        reason = _target_refusal(vm, proxies)
        if reason:
            refused.append(Exclusion(name=vm.name, reason=reason))
        else:
            targets.append(vm)
    return tuple(targets), tuple(refused)


def _target_refusal(vm: Vm, proxies: Sequence[Proxy]) -> str:
    if vm.deployment is Deployment.CLASSIC:
        if not any(proxy.management_certificate for proxy in proxies):
            return (
                "an Azure Classic VM needs a proxy with a management certificate, and no usable proxy has one"
            )
        return "Azure Classic VMs are not supported by this version"
    if not vm.disks:
        return "it has no disks"
    return ""


def assign_round_robin(disks: Sequence[SourceDisk], proxies: Sequence[Proxy]) -> tuple[Assignment, ...]:
    """Streams to proxies in turn, in the order given, so that the same input always gives the same plan."""
    return tuple(
        Assignment(disk_key=disk.key, proxy=proxies[turn % len(proxies)].name)
        for turn, disk in enumerate(disks)
    )
