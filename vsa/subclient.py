"""What a subclient is, and which VMs and disks it selects.

Two levels of rules, groups of rules, are all there is: with negation they express every combination
(ANY group of ALL rules is a disjunctive normal form), people can read them, and a Prefect block can
show them (its schema does not allow a model that contains itself).

Selecting is pure: the same subclient and the same VMs give the same answer, with a reason for each.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from vsa.memory import DEFAULT_BOUND
from vsa.model import AttachedDisk, Deployment, DiskRole, Exclusion, Noun, SourceDisk, Vm
from vsa.ranges import GIB, MIB
from vsa.retention import Retention
from vsa.text import printable

Pattern = Annotated[str, Field(min_length=1, max_length=256)]


class VmField(StrEnum):
    """What a rule can look at."""

    NAME = "name"
    RESOURCE_GROUP = "resource_group"
    REGION = "region"
    TAG = "tag"
    POWER_STATE = "power_state"
    OS_TYPE = "os_type"
    SIZE = "size"
    SUBSCRIPTION = "subscription"
    DEPLOYMENT = "deployment"


class Operator(StrEnum):
    EQUALS = "equals"
    MATCHES = "matches"


class Match(StrEnum):
    ALL = "all"
    ANY = "any"


_KNOWN_VALUES = {
    VmField.OS_TYPE: ("windows", "linux"),
    VmField.DEPLOYMENT: tuple(Deployment),
}

_BRACKETS = re.compile(r"\[!?+.[^]]*\]", re.DOTALL)


class Rule(Noun):
    """One condition on a VM. Upper and lower case are the same, as they are in Azure's own names."""

    field: VmField = Field(description="What to look at.")
    operator: Operator = Field(
        default=Operator.EQUALS,
        description="'equals' compares the whole value; 'matches' takes * and ? and [abc] as wildcards.",
    )
    value: Pattern = Field(description="The value or pattern. A tag that only has to exist matches '*'.")
    tag: str = Field(default="", max_length=512, description="The tag's name; for the field 'tag' alone.")
    negate: bool = Field(default=False, description="Select the VMs for which this is not so.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.field is VmField.TAG) != bool(self.tag):
            raise ValueError(f"a rule on {self.field} {'needs' if not self.tag else 'takes no'} tag name")
        if self.operator is Operator.MATCHES:
            _require_closed_brackets(self.value)
        known = _KNOWN_VALUES.get(self.field, ())
        if known and self.operator is Operator.EQUALS and self.value.casefold() not in known:
            raise ValueError(f"{self.field} is one of {', '.join(known)}, never {self.value!r}")
        return self

    def holds(self, vm: Vm) -> bool:
        wanted, value = self.value, self._value_of(vm)
        if self.field is VmField.REGION:
            # Classic says "West Europe" where Resource Manager says "westeurope".
            wanted, value = wanted.replace(" ", ""), (value or "").replace(" ", "")
        return (value is not None and _fits(self.operator, wanted, value)) != self.negate

    def _value_of(self, vm: Vm) -> str | None:
        if self.field is VmField.TAG:
            tags = {name.casefold(): value for name, value in vm.tags.items()}
            return tags.get(self.tag.casefold())
        attribute = "subscription_id" if self.field is VmField.SUBSCRIPTION else self.field.value
        return str(getattr(vm, attribute))

    def __str__(self) -> str:
        subject = f"tag {self.tag}" if self.tag else self.field.replace("_", " ")
        return printable(f"{'not: ' if self.negate else ''}{subject} {self.operator} '{self.value}'")


class RuleGroup(Noun):
    """Rules taken together."""

    match: Match = Field(default=Match.ALL, description="Whether all rules must hold, or any one of them.")
    rules: tuple[Rule, ...] = Field(min_length=1, description="At least one rule.")
    negate: bool = Field(default=False, description="Select the VMs for which the group does not hold.")

    def holds(self, vm: Vm) -> bool:
        answers = [rule.holds(vm) for rule in self.rules]
        return (all(answers) if self.match is Match.ALL else any(answers)) != self.negate

    def __str__(self) -> str:
        word = " and " if self.match is Match.ALL else " or "
        return f"{'not ' if self.negate else ''}({word.join(map(str, self.rules))})"


class DiskFilter(Noun):
    """Disks to leave out: those for which everything stated here is so."""

    name: Pattern | None = Field(default=None, description="Disk name; * and ? and [abc] are wildcards.")
    lun: int | None = Field(default=None, ge=0, le=63, description="Logical unit number of a data disk.")
    role: DiskRole | None = Field(default=None, description="OS disk or data disk.")
    sku: Pattern | None = Field(default=None, description="Such as Premium_LRS; wildcards as for names.")
    at_least_gib: int | None = Field(default=None, ge=1, description="Disks of this size and larger.")
    at_most_gib: int | None = Field(default=None, ge=1, description="Disks of this size and smaller.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a disk filter with nothing stated would leave out every disk: state something")
        if self.at_least_gib and self.at_most_gib and self.at_least_gib > self.at_most_gib:
            raise ValueError(f"no disk has at least {self.at_least_gib} and at most {self.at_most_gib} GiB")
        for pattern in (self.name, self.sku):
            _require_closed_brackets(pattern or "")
        return self

    def leaves_out(self, disk: AttachedDisk | SourceDisk) -> bool:
        """Whether the filter applies; what is not known of a disk yet never leaves it out."""
        size = _size_in_gib(disk)
        return all(
            (
                self.name is None or _fits(Operator.MATCHES, self.name, disk.name),
                self.lun is None or self.lun == disk.lun,
                self.role is None or self.role == disk.role,
                self.sku is None or (disk.sku is not None and _fits(Operator.MATCHES, self.sku, disk.sku)),
                self.at_least_gib is None or (size is not None and size >= self.at_least_gib),
                self.at_most_gib is None or (size is not None and size <= self.at_most_gib),
            )
        )

    def __str__(self) -> str:
        stated = self.model_dump(mode="json", exclude_none=True)
        return printable(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in stated.items()))


class Subclient(Noun):
    """A named selection of VMs and disks, and how to protect them."""

    name: str = Field(min_length=1, max_length=64, description="What the subclient is called in reports.")
    vms: tuple[Pattern, ...] = Field(
        default=(), description="VMs selected by name or by resource id, whatever the rules say."
    )
    match: Match = Field(default=Match.ANY, description="Whether all groups must hold, or any one of them.")
    groups: tuple[RuleGroup, ...] = Field(
        default=(), description="Rules that select VMs. Without rules, only the VMs named above are selected."
    )
    exclude: tuple[Rule, ...] = Field(
        default=(), description="VMs left out although they were selected: those that any of these describes."
    )
    disk_filters: tuple[DiskFilter, ...] = Field(
        default=(), description="Disks left out: those that any of these describes."
    )
    method: Literal["cbt", "crc"] = Field(
        default="cbt",
        description="How changes are found: 'cbt' asks Azure and reads only what changed, "
        "'crc' reads every allocated extent and compares checksums.",
    )
    full_every: int = Field(
        default=0, ge=0, description="Read everything again in every n-th job; 0 means never, 1 means always."
    )
    proxies: tuple[str, ...] = Field(
        default=(), description="The proxies that may move the data; empty means any that is online."
    )
    streams_per_proxy: int = Field(default=4, ge=1, le=64, description="Disks a proxy moves at one time.")
    consistency: Literal["crash-consistent per disk"] = Field(
        default="crash-consistent per disk", description="What the snapshots of one VM promise together."
    )
    deduplication: Literal["media", "client", "off"] = Field(
        default="media",
        description="Among whom the same data is stored once: 'media' all clients of the backup media, "
        "'client' the disks and recovery points of one client, 'off' nobody.",
    )
    allow_incomplete_points: bool = Field(
        default=False,
        description="Keep a recovery point, labelled so, when a disk of the VM could not be backed up.",
    )
    audit_extents: int = Field(
        default=16,
        ge=16,
        description="Extents read in each job although Azure called them unchanged: at least.",
    )
    audit_share: float = Field(
        default=0.001, ge=0.0, le=1.0, description="The same as a share of the disk's unchanged extents."
    )
    audit_cycle_jobs: int = Field(
        default=2000, ge=1, description="Jobs within which the audit has looked at every extent once."
    )
    max_base_age_days: int = Field(
        default=30, ge=1, description="A base snapshot older than this is released, and CRC used instead."
    )
    memory_mib: int = Field(
        default=DEFAULT_BOUND // MIB,
        ge=128,
        description="Memory that a process which carries streams may take, in MiB, its code included.",
    )
    most_mib_per_second: int = Field(
        default=0,
        ge=0,
        description="How fast a process reads from Azure, its streams together; 0 means as fast as it can.",
    )
    retention: Retention | None = Field(
        default=None,
        description="Which recovery points to keep when media is pruned; without it all of them are kept.",
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one VM is in, and why, in words."""

    vm: Vm
    selected: bool
    reason: str
    wanted: bool
    """A rule or a name selected it, whether or not it was then excluded."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The subclient's answer to a list of VMs, in the list's order."""

    verdicts: tuple[Verdict, ...]
    not_found: tuple[str, ...]
    """Names and ids that the subclient lists and no VM bears."""
    rule_counts: tuple[tuple[str, int], ...]
    """Each rule of the groups, in words, and how many VMs it holds for by itself."""

    @property
    def targets(self) -> tuple[Vm, ...]:
        return tuple(verdict.vm for verdict in self.verdicts if verdict.selected)

    @property
    def exclusions(self) -> tuple[Exclusion, ...]:
        """What somebody could miss: VMs selected and then excluded, and named VMs that do not exist."""
        excluded = [
            Exclusion(name=v.vm.name, reason=v.reason) for v in self.verdicts if v.wanted and not v.selected
        ]
        unseen = f"named in the subclient, but not among the {len(self.verdicts)} VMs that were found"
        return (*excluded, *(Exclusion(name=name, reason=unseen) for name in self.not_found))


Disk = TypeVar("Disk", AttachedDisk, SourceDisk)


def select_vms(subclient: Subclient, vms: Sequence[Vm]) -> Selection:
    """Which of the VMs the subclient protects; exclusions win over rules and over names."""
    rules = [rule for group in subclient.groups for rule in group.rules]
    return Selection(
        verdicts=tuple(_verdict(subclient, vm) for vm in vms),
        not_found=tuple(name for name in subclient.vms if not any(_names(name, vm) for vm in vms)),
        rule_counts=tuple((str(rule), sum(rule.holds(vm) for vm in vms)) for rule in rules),
    )


def select_disks(
    subclient: Subclient, disks: Sequence[Disk]
) -> tuple[tuple[Disk, ...], tuple[Exclusion, ...]]:
    """The disks to protect, and the others with the filter that leaves each out."""
    kept: list[Disk] = []
    excluded: list[Exclusion] = []
    for disk in disks:
        reasons = [str(item) for item in subclient.disk_filters if item.leaves_out(disk)]
        if reasons:
            excluded.append(Exclusion(name=disk.name, reason=f"left out by the disk filter: {reasons[0]}"))
        else:
            kept.append(disk)
    return tuple(kept), tuple(excluded)


def explain(selection: Selection) -> str:
    """What was selected and what was looked at, in lines that say where a selection went wrong."""
    return "\n".join(_explanation(selection))


def preview(subclient: Subclient, vms: Sequence[Vm]) -> str:
    """Why each VM is in or out, and each disk of those that are in; nothing is touched to find out."""
    return "\n".join(_preview(subclient, vms))


def _preview(subclient: Subclient, vms: Sequence[Vm]) -> Iterator[str]:
    selection = select_vms(subclient, vms)
    for verdict in selection.verdicts:
        yield f"{'in ' if verdict.selected else 'out'}  {printable(verdict.vm.name)}: {verdict.reason}"
        if verdict.selected:
            kept, excluded = select_disks(subclient, verdict.vm.disks)
            yield from (f"       in   disk {printable(disk.name)}" for disk in kept)
            yield from (f"       out  disk {printable(item.name)}: {item.reason}" for item in excluded)
    yield explain(selection)


def _explanation(selection: Selection) -> Iterator[str]:
    verdicts = selection.verdicts
    yield f"{len(selection.targets)} of {len(verdicts)} VMs selected."
    if not verdicts:
        yield "No VM was found at all: check the subscription and the identity's Reader role."
    for rule, count in selection.rule_counts:
        yield f"Rule {rule}: holds for {count} of {len(verdicts)}."
    for exclusion in selection.exclusions:
        yield f"{printable(exclusion.name)}: {exclusion.reason}."
    if verdicts and not selection.rule_counts and not any(verdict.wanted for verdict in verdicts):
        yield "The subclient has no rules; it selects only VMs that it names."


def _verdict(subclient: Subclient, vm: Vm) -> Verdict:
    why = _why_wanted(subclient, vm)
    if why is None:
        return Verdict(vm, selected=False, reason="no rule selects it", wanted=False)
    for rule in subclient.exclude:
        if rule.holds(vm):
            return Verdict(vm, selected=False, reason=f"excluded by {rule}", wanted=True)
    return Verdict(vm, selected=True, reason=why, wanted=True)


def _why_wanted(subclient: Subclient, vm: Vm) -> str | None:
    if any(_names(name, vm) for name in subclient.vms):
        return "named in the subclient"
    holding = [group for group in subclient.groups if group.holds(vm)]
    needed = len(subclient.groups) if subclient.match is Match.ALL else 1
    if not holding or len(holding) < needed:
        return None
    return f"selected by {' and '.join(map(str, holding[:needed]))}"


def _names(name: str, vm: Vm) -> bool:
    return name.casefold() in (vm.name.casefold(), vm.resource_id.casefold())


def _fits(operator: Operator, wanted: str, value: str) -> bool:
    if operator is Operator.EQUALS:
        return value.casefold() == wanted.casefold()
    return re.match(fnmatch.translate(wanted.casefold()), value.casefold()) is not None


def _require_closed_brackets(pattern: str) -> None:
    # fnmatch takes an unclosed bracket literally, which is never what was meant.
    if "[" in _BRACKETS.sub("", pattern):
        raise ValueError(f"pattern {pattern!r} opens a bracket that it never closes; a literal one is [[]")


def _size_in_gib(disk: AttachedDisk | SourceDisk) -> float | None:
    return disk.size / GIB if isinstance(disk, SourceDisk) else disk.size_gib
