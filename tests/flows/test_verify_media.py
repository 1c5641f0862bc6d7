"""The verify flow on a Prefect server: sound media completes, damage fails and is shown and recorded."""

from __future__ import annotations

from prefect.client.orchestration import get_client

from flows.verify_media import verify_media
from tasks.witness import kept_witness
from tests.flows.prefect_server import wait_for
from tests.flows.site import Site, managed


def artifact_of(site: Site) -> str:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts()
    mine = [item for item in found if item.key == f"verify-{site.name}"]
    return str(max(mine, key=lambda item: item.created).data)


def test_damage_fails_the_flow_and_the_next_backup_heals_it(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    site.back_up()
    sound = verify_media(site.name, depth="restore", return_state=True)
    assert sound.is_completed() and "sound" in sound.message

    (slot,) = site.points_of("web")
    site.flip_bit_of(slot, "web-os", extent=1)
    damaged = verify_media(site.name, sample=100, return_state=True)
    assert damaged.is_failed()
    assert "lost 64 KiB: bytes 65536 to 131072" in damaged.message
    assert "Recorded in log slot" in damaged.message
    assert kept_witness(site.media) == site.media.view().witness
    shown = wait_for("the report", lambda: artifact_of(site) if "DAMAGED" in artifact_of(site) else None)
    assert f"points {slot}, disk web-os of web: lost 64 KiB" in shown.replace("\\", "")

    site.back_up()
    assert verify_media(site.name, return_state=True).is_completed()


def test_media_that_nobody_saved_is_named_in_the_failure(site: Site) -> None:
    state = verify_media("nowhere", return_state=True)
    assert state.is_failed() and "there is no backup media 'nowhere'" in state.message
