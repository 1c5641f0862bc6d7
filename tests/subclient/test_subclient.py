from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.subclient.builders import (
    a_source_disk,
    a_vm,
    an_attached_disk,
    groups,
    matching,
    rules,
    vms,
)
from vsa.model import Deployment, DiskRole, SourceDisk, Vm
from vsa.ranges import GIB
from vsa.subclient import (
    DiskFilter,
    Match,
    Operator,
    Rule,
    RuleGroup,
    Subclient,
    VmField,
    explain,
    preview,
    select_disks,
    select_vms,
)


def names(subclient: Subclient, *given_vms: Vm) -> list[str]:
    return [vm.name for vm in select_vms(subclient, given_vms).targets]


def selecting(*given_rules: Rule, **given: Any) -> Subclient:
    return Subclient(name="nightly", groups=(RuleGroup(rules=given_rules),), **given)


@given(rules, vms)
def test_a_negated_rule_holds_exactly_when_the_rule_does_not(rule: Rule, vm: Vm) -> None:
    assert rule.model_copy(update={"negate": not rule.negate}).holds(vm) != rule.holds(vm)


@given(groups, vms)
def test_all_and_any_are_each_other_s_negation(group: RuleGroup, vm: Vm) -> None:
    other = RuleGroup(
        match=Match.ANY if group.match is Match.ALL else Match.ALL,
        rules=tuple(rule.model_copy(update={"negate": not rule.negate}) for rule in group.rules),
        negate=not group.negate,
    )
    assert other.holds(vm) == group.holds(vm)


@given(groups, rules, vms)
def test_another_rule_narrows_all_and_widens_any(group: RuleGroup, rule: Rule, vm: Vm) -> None:
    wider = RuleGroup(match=group.match, rules=(*group.rules, rule))
    plain = RuleGroup(match=group.match, rules=group.rules)
    assert wider.holds(vm) == (
        (plain.holds(vm) and rule.holds(vm))
        if group.match is Match.ALL
        else (plain.holds(vm) or rule.holds(vm))
    )


@given(
    st.lists(groups, max_size=3),
    st.sampled_from(Match),
    st.lists(rules, max_size=2),
    st.lists(vms, max_size=5),
)
def test_every_vm_is_in_or_out_by_its_groups_and_exclusions_and_says_why(
    some_groups: list[RuleGroup], match: Match, exclude: list[Rule], some_vms: list[Vm]
) -> None:
    subclient = Subclient(name="s", groups=tuple(some_groups), match=match, exclude=tuple(exclude))
    selection = select_vms(subclient, some_vms)
    join = all if match is Match.ALL else any
    for verdict, vm in zip(selection.verdicts, some_vms, strict=True):
        wanted = bool(some_groups) and join(group.holds(vm) for group in some_groups)
        assert verdict.selected == (wanted and not any(rule.holds(vm) for rule in exclude))
        assert verdict.wanted == wanted
        assert verdict.reason
    assert len(selection.exclusions) == sum(v.wanted and not v.selected for v in selection.verdicts)


@given(groups)
def test_a_subclient_survives_json(group: RuleGroup) -> None:
    subclient = Subclient(name="s", groups=(group,), disk_filters=(DiskFilter(lun=3),))
    assert Subclient.model_validate_json(subclient.model_dump_json()) == subclient


@pytest.mark.parametrize(
    ("rule", "fitting", "other"),
    [
        (Rule(field=VmField.NAME, value="WEB-01"), a_vm("web-01"), a_vm("web-011")),
        (matching(VmField.NAME, "web-??"), a_vm("Web-01"), a_vm("web-1")),
        (matching(VmField.RESOURCE_GROUP, "*-db"), a_vm(resource_group="RG-DB"), a_vm()),
        (Rule(field=VmField.REGION, value="westeurope"), a_vm(region="West Europe"), a_vm(region="eastus")),
        (Rule(field=VmField.POWER_STATE, value="running"), a_vm(), a_vm(power_state="deallocated")),
        (Rule(field=VmField.OS_TYPE, value="windows"), a_vm(os_type="Windows"), a_vm()),
        (matching(VmField.SIZE, "standard_d*"), a_vm(), a_vm(size="Basic_A1")),
        (Rule(field=VmField.SUBSCRIPTION, value="abc"), a_vm(subscription_id="ABC"), a_vm()),
        (Rule(field=VmField.DEPLOYMENT, value="classic"), a_vm(deployment=Deployment.CLASSIC), a_vm()),
        (
            Rule(field=VmField.TAG, tag="ENV", value="prod"),
            a_vm(tags={"env": "Prod"}),
            a_vm(tags={"env": "test"}),
        ),
        (matching(VmField.TAG, "*", tag="env"), a_vm(tags={"env": ""}), a_vm(tags={"other": "x"})),
        (matching(VmField.NAME, "a[[]1]"), a_vm("a[1]"), a_vm("a1")),
    ],
    ids=lambda value: str(value) if isinstance(value, Rule) else value.name,
)
def test_each_field_is_compared_as_azure_would(rule: Rule, fitting: Vm, other: Vm) -> None:
    assert rule.holds(fitting)
    assert not rule.holds(other)


def test_a_name_with_a_line_break_is_not_matched_by_its_first_line() -> None:
    assert not matching(VmField.NAME, "web-01").holds(a_vm("web-01\nrm"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"field": "colour", "value": "red"}, "field"),
        ({"field": "name", "value": ""}, "at least 1 character"),
        ({"field": "name", "operator": "matches", "value": "web[0"}, "never closes"),
        ({"field": "name", "operator": "resembles", "value": "x"}, "'equals' or 'matches'"),
        ({"field": "tag", "value": "prod"}, "needs tag name"),
        ({"field": "name", "value": "x", "tag": "env"}, "takes no tag name"),
        ({"field": "os_type", "value": "windwos"}, "windows, linux"),
        ({"field": "name", "value": "x", "unknown": 1}, "unknown"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_in_words(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Rule(**fields)


def test_a_group_without_rules_is_refused_because_all_of_nothing_would_be_everything() -> None:
    with pytest.raises(ValidationError, match="rules"):
        RuleGroup(rules=())


def test_a_subclient_without_rules_selects_only_the_vms_it_names() -> None:
    by_id = a_vm("db-01", resource_group="rg-db")
    subclient = Subclient(name="s", vms=("WEB-01", by_id.resource_id.upper()))
    assert names(subclient, a_vm("web-01"), by_id, a_vm("test")) == ["web-01", "db-01"]


def test_an_exclusion_wins_over_a_name_and_is_reported() -> None:
    subclient = Subclient(name="s", vms=("web-01",), exclude=(matching(VmField.NAME, "web-*"),))
    selection = select_vms(subclient, [a_vm("web-01"), a_vm("db-01")])
    assert selection.targets == ()
    assert [(e.name, e.reason) for e in selection.exclusions] == [
        ("web-01", "excluded by name matches 'web-*'")
    ]


def test_a_named_vm_that_does_not_exist_is_reported() -> None:
    selection = select_vms(Subclient(name="s", vms=("gone-01",)), [a_vm()])
    (exclusion,) = selection.exclusions
    assert exclusion.name == "gone-01" and "not among the 1 VMs" in exclusion.reason


def test_explain_says_which_rule_lost_the_vms() -> None:
    subclient = selecting(matching(VmField.NAME, "web-*"), Rule(field=VmField.REGION, value="westus"))
    text = explain(select_vms(subclient, [a_vm("web-01"), a_vm("db-01")]))
    assert text.splitlines() == [
        "0 of 2 VMs selected.",
        "Rule name matches 'web-*': holds for 1 of 2.",
        "Rule region equals 'westus': holds for 0 of 2.",
    ]


def test_explain_tells_no_vms_from_no_rules() -> None:
    assert "No VM was found at all" in explain(select_vms(Subclient(name="s"), []))
    assert "The subclient has no rules" in explain(select_vms(Subclient(name="s"), [a_vm()]))


@pytest.mark.parametrize(
    ("disk_filter", "left_out"),
    [
        (DiskFilter(name="data-*"), ["data-0", "data-1"]),
        (DiskFilter(lun=1), ["data-1"]),
        (DiskFilter(role=DiskRole.OS), ["os"]),
        (DiskFilter(sku="premium*"), ["data-0"]),
        (DiskFilter(at_least_gib=64), ["data-1"]),
        (DiskFilter(at_most_gib=30), ["os"]),
        (DiskFilter(name="data-*", at_most_gib=32), ["data-0"]),
    ],
    ids=str,
)
def test_a_disk_filter_leaves_out_the_disks_it_describes(
    disk_filter: DiskFilter, left_out: list[str]
) -> None:
    disks = [
        a_source_disk("os", role=DiskRole.OS, lun=None, size=30 * GIB, sku="Standard_LRS"),
        a_source_disk("data-0", size=32 * GIB),
        a_source_disk("data-1", lun=1, size=64 * GIB, sku="UltraSSD_LRS"),
    ]
    kept, excluded = select_disks(Subclient(name="s", disk_filters=(disk_filter,)), disks)
    assert [item.name for item in excluded] == left_out
    assert all(str(disk_filter) in item.reason for item in excluded)
    assert [disk.name for disk in kept] == [disk.name for disk in disks if disk.name not in left_out]


@given(
    st.lists(
        st.sampled_from([DiskFilter(lun=0), DiskFilter(sku="P*"), DiskFilter(at_least_gib=100)]), max_size=3
    )
)
def test_each_disk_is_kept_or_excluded_once(filters: list[DiskFilter]) -> None:
    disks: list[SourceDisk] = [
        a_source_disk(f"d{lun}", lun=lun, sku=sku)
        for lun in (0, 1)
        for sku in ("Premium_LRS", "Standard_LRS")
    ]
    kept, excluded = select_disks(Subclient(name="s", disk_filters=tuple(filters)), disks)
    assert len(kept) + len(excluded) == len(disks)
    assert all(not any(f.leaves_out(disk) for f in filters) for disk in kept)


def test_what_is_not_known_of_a_disk_never_leaves_it_out() -> None:
    unknown = an_attached_disk(size_gib=None, sku=None)
    filters = (DiskFilter(sku="*"), DiskFilter(at_least_gib=1), DiskFilter(at_most_gib=99999))
    kept, excluded = select_disks(Subclient(name="s", disk_filters=filters), [unknown])
    assert kept == (unknown,) and excluded == ()


@pytest.mark.parametrize(
    "fields", [{}, {"at_least_gib": 10, "at_most_gib": 5}, {"name": "["}, {"lun": -1}, {"colour": "red"}]
)
def test_a_disk_filter_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DiskFilter(**fields)


@pytest.mark.parametrize(
    "fields", [{"audit_extents": 15}, {"method": "full"}, {"streams_per_proxy": 0}, {"audit_share": 1.5}]
)
def test_settings_outside_their_bounds_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Subclient(name="s", **fields)


def test_every_setting_is_described_for_the_form_that_edits_it() -> None:
    for model in (Rule, RuleGroup, DiskFilter, Subclient):
        assert all(field.description for field in model.model_fields.values()), model


def test_a_preview_says_why_each_vm_and_disk_is_in_or_out() -> None:
    disks = (an_attached_disk("sys", role=DiskRole.OS, lun=None), an_attached_disk("logs"))
    estate = [
        a_vm("web", tags={"backup": "yes"}, disks=disks),
        a_vm("lab", tags={"backup": "no"}),
        a_vm("db1"),
    ]
    subclient = selecting(
        Rule(field=VmField.NAME, operator=Operator.MATCHES, value="*b"),
        exclude=(Rule(field=VmField.TAG, tag="backup", operator=Operator.EQUALS, value="no"),),
        disk_filters=(DiskFilter(role=DiskRole.DATA),),
    )
    lines = preview(subclient, estate).splitlines()
    assert lines[0].startswith("in   web: selected by")
    assert lines[1].strip() == "in   disk sys"
    assert lines[2].strip().startswith("out  disk logs: left out by the disk filter")
    assert lines[3].startswith("out  lab: excluded by")
    assert lines[4] == "out  db1: no rule selects it"
