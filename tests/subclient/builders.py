"""VMs and disks for the tests of selection, with only what a test is about spelled out."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from vsa.model import AttachedDisk, DiskKind, DiskRole, SourceDisk, Vm
from vsa.ranges import GIB
from vsa.subclient import Match, Operator, Rule, RuleGroup, VmField


def a_vm(name: str = "web-01", **given: Any) -> Vm:
    group = given.pop("resource_group", "rg-web")
    subscription = given.pop("subscription_id", "11111111-2222-3333-4444-555555555555")
    return Vm(
        **{
            "resource_id": f"/subscriptions/{subscription}/resourceGroups/{group}/providers/"
            f"Microsoft.Compute/virtualMachines/{name}",
            "vm_id": f"id-of-{name}",
            "name": name,
            "resource_group": group,
            "subscription_id": subscription,
            "region": "westeurope",
            "size": "Standard_D2s_v5",
            "os_type": "Linux",
            "power_state": "running",
            **given,
        }
    )


def an_attached_disk(name: str = "data-0", **given: Any) -> AttachedDisk:
    return AttachedDisk(
        **{
            "name": name,
            "role": DiskRole.DATA,
            "lun": 0,
            "managed": True,
            "source": f"/disks/{name}",
            "size_gib": 32,
            "sku": "Premium_LRS",
            **given,
        }
    )


def a_source_disk(name: str = "data-0", **given: Any) -> SourceDisk:
    return SourceDisk(
        **{
            "name": name,
            "role": DiskRole.DATA,
            "lun": 0,
            "kind": DiskKind.MANAGED,
            "source": f"/disks/{name}",
            "unique_id": f"unique-{name}",
            "size": 32 * GIB,
            "sku": "Premium_LRS",
            "region": "westeurope",
            "resource_group": "rg-web",
            **given,
        }
    )


def matching(field: VmField, pattern: str, **given: Any) -> Rule:
    return Rule(field=field, operator=Operator.MATCHES, value=pattern, **given)


words = st.sampled_from(["web-01", "web-02", "db-01", "DB-02", "test"])
vms = st.builds(
    a_vm,
    words,
    resource_group=st.sampled_from(["rg-web", "rg-db"]),
    region=st.sampled_from(["westeurope", "West Europe", "eastus"]),
    os_type=st.sampled_from(["Linux", "Windows"]),
    tags=st.dictionaries(st.sampled_from(["env", "Env2"]), st.sampled_from(["prod", "test"]), max_size=2),
)
_name_rules = st.builds(
    Rule,
    field=st.just(VmField.NAME),
    operator=st.sampled_from(Operator),
    value=st.sampled_from(["web-*", "db-0?", "DB-01", "*[12]", "test", "*"]),
    negate=st.booleans(),
)
_tag_rules = st.builds(
    Rule,
    field=st.just(VmField.TAG),
    operator=st.just(Operator.MATCHES),
    value=st.sampled_from(["*", "prod", "t*"]),
    tag=st.sampled_from(["env", "ENV2", "absent"]),
    negate=st.booleans(),
)
rules = st.one_of(_name_rules, _tag_rules)
groups = st.builds(
    RuleGroup,
    match=st.sampled_from(Match),
    rules=st.lists(rules, min_size=1, max_size=4).map(tuple),
    negate=st.booleans(),
)
