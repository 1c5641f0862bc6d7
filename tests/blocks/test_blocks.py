"""Blocks through a real server: what is kept, what is shown, and what the form in the UI is made from."""

from __future__ import annotations

import datetime as dt
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from pydantic import SecretStr, ValidationError

from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from blocks.proxy import BackupProxy, saved_proxies
from blocks.saved import saved_names
from blocks.schema import SchemaOnce
from blocks.subclient import BackupSubclient
from tests.certificates import END, certificate_of, key_of
from tests.flows.prefect_server import ROOT, PrefectServer
from vsa.errors import BadRequest, MediaConflict, NoMedia
from vsa.media.access import StoreAccess
from vsa.media.media import Media
from vsa.secret import Secret
from vsa.subclient import Operator, Rule, RuleGroup, Subclient, VmField

SECRET = "canary-of-a-client-secret"
CERTIFICATE = "canary-of-a-certificate"
_names = (f"block-{number}" for number in count(1))

pytestmark = pytest.mark.usefixtures("prefect_server")


def subscription(**changes: Any) -> AzureSubscription:
    fields = {
        "subscription_id": "s-1",
        "tenant_id": "t-1",
        "client_id": "c-1",
        "client_secret": SecretStr(SECRET),
    }
    return AzureSubscription(**(fields | changes))


def proxy(name: str, **changes: Any) -> BackupProxy:
    return BackupProxy(proxy_name=name, management_certificate=SecretStr(CERTIFICATE), **changes)


SETTINGS = Subclient(
    name="production",
    groups=(RuleGroup(rules=(Rule(field=VmField.NAME, operator=Operator.MATCHES, value="web-*"),)),),
    exclude=(Rule(field=VmField.TAG, tag="backup", value="no"),),
    method="crc",
)


def media_block() -> BackupMedia:
    return BackupMedia(
        location="/backup",
        blob_sas=SecretStr(f"sv=2025-11-05&sig={SECRET}"),
        s3_key_id="id",
        s3_secret=SecretStr(SECRET),
    )


def saved_subclient() -> tuple[str, AzureSubscription, BackupMedia]:
    """A subclient and what it refers to, all saved under one new name."""
    name = next(_names)
    account, media = subscription(), media_block()
    account.save(name)
    media.save(name)
    BackupSubclient(subscription=account, media=media, settings=SETTINGS).save(name)
    return name, account, media


@pytest.fixture
def proxies() -> Iterator[list[str]]:
    """Two saved proxies, the only ones for the length of a test."""
    before = {name: BackupProxy.load(name) for name in saved_names(BackupProxy)}
    for name in before:
        BackupProxy.delete(name)
    names = ["east", "west"]
    for name in names:
        proxy(name).save(name)
    yield names
    for name in saved_names(BackupProxy):
        BackupProxy.delete(name)
    for name, block in before.items():
        block.save(name)


def test_a_subclient_comes_back_as_it_was_saved() -> None:
    name, _, _ = saved_subclient()
    found = BackupSubclient.named(name)
    assert found.settings == SETTINGS
    assert found.media.location == "/backup"
    connection = found.subscription.connection()
    assert connection.client_secret is not None
    assert connection.client_secret.reveal() == SECRET
    assert (connection.subscription_id, connection.tenant_id, connection.client_id) == ("s-1", "t-1", "c-1")


def test_a_subclient_refers_to_its_blocks_and_sees_them_change() -> None:
    name, _, _ = saved_subclient()
    BackupMedia(location="/elsewhere").save(name, overwrite=True)
    subscription(client_secret=SecretStr("rotated")).save(name, overwrite=True)
    found = BackupSubclient.named(name)
    assert found.media.location == "/elsewhere"
    assert found.subscription.client_secret is not None
    assert found.subscription.client_secret.get_secret_value() == "rotated"


def test_saving_a_changed_subclient_keeps_its_references() -> None:
    name, _, _ = saved_subclient()
    found: Any = BackupSubclient.named(name)
    found.settings = SETTINGS.model_copy(update={"full_every": 7})
    found.save(name, overwrite=True)
    BackupMedia(location="/elsewhere").save(name, overwrite=True)
    again = BackupSubclient.named(name)
    assert (again.settings.full_every, again.media.location) == (7, "/elsewhere")


def test_an_unknown_subclient_is_answered_with_the_known_ones() -> None:
    name, _, _ = saved_subclient()
    with pytest.raises(BadRequest, match=rf"no subclient 'missing'.*these are saved: .*\b{name}\b"):
        BackupSubclient.named("missing")


def test_a_server_that_knows_no_such_type_has_none_saved() -> None:
    class NeverRegistered(Block):
        pass

    assert saved_names(NeverRegistered) == []


def shown(block: Block) -> list[str]:
    """Every way in which a block may be written down by accident."""
    return [repr(block), str(block), block.model_dump_json(), json.dumps(block.model_dump(mode="json"))]


@pytest.mark.parametrize(
    "block",
    [
        subscription(),
        proxy("p"),
        media_block(),
        BackupSubclient(subscription=subscription(), media=BackupMedia(location="/b"), settings=SETTINGS),
    ],
    ids=lambda block: type(block).__name__,
)
def test_secrets_are_masked_however_a_block_is_written_down(
    block: Block, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("tests").warning("%s and %r", block, block)
    for text in (*shown(block), caplog.text):
        assert SECRET not in text
        assert CERTIFICATE not in text
    assert "*" * 8 in caplog.text


def test_the_server_tells_no_secret_to_whoever_looks(
    prefect_server: PrefectServer, proxies: list[str]
) -> None:
    name, _, _ = saved_subclient()
    looked = [
        inspect(prefect_server, "vsa-azure-subscription", name),
        inspect(prefect_server, "vsa-subclient", name),
        inspect(prefect_server, "vsa-proxy", proxies[0]),
        inspect(prefect_server, "vsa-backup-media", name),
    ]
    with get_client(sync_client=True) as client:
        looked += [
            document.model_dump_json()
            for slug in ("vsa-azure-subscription", "vsa-subclient", "vsa-proxy", "vsa-backup-media")
            for document in client.read_block_documents_by_type(slug, include_secrets=False)
        ]
    assert len(looked) > 5
    assert all(name in text for text, name in zip(looked[:4], (name, name, proxies[0], name), strict=True))
    assert not [text for text in looked if SECRET in text or CERTIFICATE in text]
    stored = prefect_server.database.read_bytes()
    assert SECRET.encode() not in stored
    assert CERTIFICATE.encode() not in stored


def inspect(server: PrefectServer, slug: str, name: str) -> str:
    """What `prefect block inspect` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "block", "inspect", f"{slug}/{name}"],
        env=dict(server.environment()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_every_saved_proxy_serves_as_it_is_now(proxies: list[str]) -> None:
    assert [item.name for item in saved_proxies()] == proxies
    assert all(item.management_certificate and not item.refusal for item in saved_proxies())
    proxy("west", paused=True).save("west", overwrite=True)
    assert {item.name: item.refusal for item in saved_proxies()} == {"east": "", "west": "it is paused"}


def test_what_a_management_certificate_lacks_is_known_at_every_moment(proxies: list[str]) -> None:
    """And costs the proxy no stream of other VMs."""
    pem = SecretStr(certificate_of("east") + key_of("east"))
    BackupProxy(proxy_name="east", management_certificate=pem).save("east", overwrite=True)
    BackupProxy(proxy_name="west", management_certificate=SecretStr(" ")).save("west", overwrite=True)
    day = dt.timedelta(days=1)
    east = [saved_proxies(moment)[0] for moment in (END, END + day)]
    assert [found.certificate_problem for found in east] == ["", "it expired on 2027-01-01"]
    assert all(found.management_certificate and not found.refusal for found in east)
    assert not saved_proxies()[1].management_certificate


def test_a_proxy_has_the_region_that_its_block_has(proxies: list[str]) -> None:
    proxy("west", region="westeurope").save("west", overwrite=True)
    assert {item.name: item.region for item in saved_proxies()} == {"east": "", "west": "westeurope"}


def test_two_proxies_may_not_share_a_name(proxies: list[str]) -> None:
    proxy("East").save("other")
    with pytest.raises(BadRequest, match="several Proxy blocks are called east"):
        saved_proxies()


@pytest.mark.parametrize("changes", [{"streams": 0}, {"streams": 65}])
def test_a_proxy_that_cannot_be_is_refused_when_it_is_saved(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        proxy("p", **changes)


def test_a_media_block_opens_and_never_makes(tmp_path: Path) -> None:
    with pytest.raises(NoMedia):
        BackupMedia(location=str(tmp_path / "absent")).open(write=True)
    assert not (tmp_path / "absent").exists()
    made = Media.create(str(tmp_path / "media"), now=dt.datetime.now(dt.UTC))
    assert BackupMedia(location=str(tmp_path / "media")).open().id == made.id


def test_a_media_block_refuses_other_media_at_its_place(tmp_path: Path) -> None:
    """As when another disk is mounted there: nothing of it is touched."""
    expected = Media.create(str(tmp_path / "expected"), now=dt.datetime.now(dt.UTC))
    other = Media.create(str(tmp_path / "other"), now=dt.datetime.now(dt.UTC))
    block = BackupMedia(location=other.location, media_id=expected.id)
    before = sorted((tmp_path / "other").rglob("*"))
    for write in (False, True):
        with pytest.raises(MediaConflict, match=f"holds media {other.id}, expected {expected.id}"):
            block.open(write=write)
    assert sorted((tmp_path / "other").rglob("*")) == before
    assert BackupMedia(location=expected.location, media_id=expected.id).open(write=True).id == expected.id


def test_a_media_block_gives_the_engine_what_lets_it_in() -> None:
    block = BackupMedia(
        location="azure://account1/media",
        blob_key=SecretStr("a2V5"),
        blob_endpoint="https://account1.blob.core.chinacloudapi.cn/",
        s3_key_id="id",
        s3_secret=SecretStr(SECRET),
        s3_endpoint="https://s3.example/",
        s3_region="eu-west-1",
    )
    assert block.access() == StoreAccess(
        blob_key=Secret("a2V5"),
        blob_endpoint="https://account1.blob.core.chinacloudapi.cn",
        s3_key_id="id",
        s3_secret=Secret(SECRET),
        s3_endpoint="https://s3.example",
        s3_region="eu-west-1",
    )
    assert BackupMedia(location="/backup", blob_sas=SecretStr("")).access() == StoreAccess()


def test_addresses_are_taken_without_a_slash_at_their_end() -> None:
    connection = subscription(
        base_url="https://arm.example/", authority="https://login.example/"
    ).connection()
    assert (connection.base_url, connection.authority) == ("https://arm.example", "https://login.example")


def form(block: type[Block]) -> dict[str, Any]:
    """The schema on the server, from which the UI makes the form."""
    block.register_type_and_schema()
    with get_client(sync_client=True) as client:
        return client.read_block_schema_by_checksum(block._calculate_schema_checksum()).fields


def test_the_form_of_a_subclient_offers_choices_limits_and_words() -> None:
    schema = form(BackupSubclient)
    assert set(schema["block_schema_references"]) == {"subscription", "media"}
    settings = schema["definitions"]["Subclient"]["properties"]
    assert all(field.get("description", "").endswith(".") for field in settings.values())
    assert settings["method"]["enum"] == ["cbt", "crc"]
    assert (settings["streams_per_proxy"]["minimum"], settings["streams_per_proxy"]["maximum"]) == (1, 64)
    rule = schema["definitions"]["Rule"]["properties"]
    assert set(schema["definitions"]["VmField"]["enum"]) == {field.value for field in VmField}
    assert all("description" in field or "$ref" in field or "allOf" in field for field in rule.values())


def test_the_schema_that_is_kept_is_what_prefect_would_make_anew() -> None:
    for block in (AzureSubscription, BackupMedia, BackupProxy, BackupSubclient):
        made = super(SchemaOnce, block).model_json_schema()
        assert block.model_json_schema() == made
        block.model_json_schema()["properties"].clear()
        assert block.model_json_schema() == made


def test_the_forms_hide_what_is_secret() -> None:
    for block, secrets in (
        (AzureSubscription, ["client_secret"]),
        (BackupProxy, ["management_certificate"]),
        (BackupMedia, ["blob_key", "blob_sas", "passphrase", "s3_secret"]),
    ):
        schema = form(block)
        # Those with a dot are of another block that this one refers to.
        assert sorted(name for name in schema["secret_fields"] if "." not in name) == secrets
        for secret in secrets:
            assert schema["properties"][secret]["anyOf"][0] == {
                "type": "string", "writeOnly": True, "format": "password"
            }  # fmt: skip


def test_a_proxy_is_reached_through_a_pool_of_its_own_name_unless_its_block_says_otherwise() -> None:
    assert BackupProxy(proxy_name="Proxy-A").pool == "proxy-a"
    assert BackupProxy(proxy_name="Proxy-A", work_pool="Backup-East").pool == "Backup-East"
    told = BackupProxy(proxy_name="Proxy-A", start_seconds=7).proxy(dt.datetime.now(dt.UTC))
    assert (told.name, told.pool, told.start_seconds) == ("Proxy-A", "proxy-a", 7)
