"""Storage accounts as ARM shows them: properties, SKU, keys. The blobs behind them are `blob_service`."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from azsim.arm import Call, ResourceKind
from azsim.arm_protocol import STORAGE_ACCOUNT, ResourceId, Wire, bad_request, timestamp
from azsim.blob_service import BlobService
from azsim.clock import Clock
from azsim.resources import Resource, Resources

_NO_RULES: Wire = {"bypass": "AzureServices", "virtualNetworkRules": [], "ipRules": []}


class StorageAccounts:
    """The storage accounts of the subscription."""

    def __init__(self, resources: Resources, blobs: BlobService, clock: Clock, *, base_url: str) -> None:
        self._resources = resources
        self._blobs = blobs
        self._clock = clock
        self._base_url = base_url

    def kind(self) -> ResourceKind:
        return ResourceKind(
            STORAGE_ACCOUNT,
            self._shown,
            {
                ("PUT", ""): self._put,
                ("PATCH", ""): self._patch,
                ("DELETE", ""): self._delete,
                ("POST", "listkeys"): self._list_keys,
                ("POST", "regeneratekey"): self._regenerate_key,
            },
        )

    def create(
        self,
        account_id: ResourceId,
        *,
        location: str,
        sku: str = "Standard_LRS",
        kind: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Resource:
        """Make the account and its blob service; premium page blobs need kind Storage or StorageV2."""
        tier = "Premium" if sku.startswith("Premium") else "Standard"
        kind = kind or "StorageV2"
        wire = {
            "name": account_id.name,
            "id": str(account_id),
            "type": STORAGE_ACCOUNT,
            "location": location,
            "tags": dict(tags or {}),
            "kind": kind,
            "sku": {"name": sku, "tier": tier},
            "properties": {
                "provisioningState": "Succeeded",
                "creationTime": timestamp(self._clock.now()),
                "supportsHttpsTrafficOnly": True,
                "allowSharedKeyAccess": True,
                "primaryEndpoints": {"blob": f"{self._base_url}/{account_id.name}/"},
                "primaryLocation": location,
                "statusOfPrimary": "available",
            },
        }
        self._resources.ensure_group(account_id.subscription, account_id.group, location)
        self._blobs.create_account(account_id.name, kind=kind, sku=sku)
        account = Resource(account_id, wire, {})
        self._resources.put(account)
        return account

    def _shown(self, account: Resource, _query: Mapping[str, str]) -> Wire:
        return account.wire

    def _put(self, call: Call) -> Response:
        self._resources.need_group(call.id.subscription, call.id.group)
        account = self._resources.find(call.id) or self.create(
            call.id,
            location=str(call.body.get("location", "westeurope")),
            sku=call.body.get("sku", {}).get("name", "Standard_LRS"),
            kind=call.body.get("kind"),
            tags=call.body.get("tags"),
        )
        return JSONResponse(account.wire)

    def _patch(self, call: Call) -> Response:
        account = self._resources.need(call.id)
        rules = call.body.get("properties", {}).get("networkAcls")
        if rules is not None:
            account = self.set_network_rules(account, rules)
        if "tags" in call.body:
            account = account.with_wire(tags=call.body["tags"])
            self._resources.put(account)
        return JSONResponse(account.wire)

    def set_network_rules(self, account: Resource, rules: Wire) -> Resource:
        """Only `defaultAction` counts: no client of the simulation comes from a network that a rule names.

        Rules bind the data plane alone, as Azure's do ("Guidelines and limitations for Azure Storage firewall
        configuration"); managed disks have none.
        """
        action = rules.get("defaultAction")
        if action not in ("Allow", "Deny"):
            raise bad_request(f"'{action}' is not a valid value for networkAcls.defaultAction.")
        self._blobs.close_account(account.id.name, closed=action == "Deny")
        changed = account.with_properties(networkAcls={**_NO_RULES, **rules})
        self._resources.put(changed)
        return changed

    def _delete(self, call: Call) -> Response:
        if self._resources.find(call.id) is None:
            return Response(status_code=204)
        self._blobs.delete_account(call.id.name)
        self._resources.delete(call.id)
        return Response(status_code=200)

    def _list_keys(self, call: Call) -> Response:
        return JSONResponse(self._keys(self._resources.need(call.id)))

    def _regenerate_key(self, call: Call) -> Response:
        account = self._resources.need(call.id)
        name = call.body.get("keyName")
        if name not in ("key1", "key2"):
            raise bad_request(f"'{name}' is not a valid value for keyName: use key1 or key2.")
        self._blobs.regenerate_key(account.id.name, name)
        return JSONResponse(self._keys(account))

    def _keys(self, account: Resource) -> Wire:
        created = account.properties["creationTime"]
        values = self._blobs.account_keys(account.id.name)
        return {
            "keys": [
                {"keyName": f"key{number}", "value": value, "permissions": "FULL", "creationTime": created}
                for number, value in enumerate(values, start=1)
            ]
        }
