"""VHDs whose names a URL cannot hold as they are: folders, spaces, per cent signs, any letter."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from azsim.control import Control
from tests.engine.story import run_job
from tests.engine.world import BETWEEN_JOBS, MIB, connection_to, random_bytes
from vsa.media.entries import JobEntry
from vsa.media.media import Media
from vsa.model import Reason
from vsa.restore.disk import Format, restore_disk
from vsa.subclient import Subclient
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.proxies import Proxy

NAMES = ("old/2019/my disk.vhd", "100%.vhd", "dïsk.vhd")


def test_vhds_of_any_name_are_backed_up_through_staging_and_restored(
    control: Control, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(random_bytes(2 * MIB, "disk"))
    disks = [
        {
            "name": f"disk-{number}",
            "kind": "data" if number else "os",
            "lun": number,
            "managed": False,
            "account": "oddnames",
            "container": "vhds",
            "blob": name,
            "image": str(image),
        }
        for number, name in enumerate(NAMES)
    ]
    accounts = [{"name": "oddnames", "sku": "Premium_LRS"}]
    fleet = {"resource_group": "odd", "storage_accounts": accounts, "vms": [{"name": "odd", "disks": disks}]}
    control.create_fleet(fleet)
    media = Media.create(str(tmp_path / "media"), now=dt.datetime.now(dt.UTC))

    def back_up(number: int) -> JobEntry:
        scratch = tmp_path / f"scratch-{number}"
        scratch.mkdir()
        control.advance_clock(BETWEEN_JOBS)
        return run_job(
            BackupJob(
                f"job-{number}",
                subclient=Subclient(name="odd", vms=("odd",)),
                connection=connection_to(control.endpoint),
                media=media,
                proxies=[Proxy(name="proxy-a")],
                scratch=scratch,
            )
        )

    assert {disk.reason for disk in back_up(1).vms[0].disks} == {Reason.FULL_FIRST}
    report = back_up(2)
    assert {disk.reason for disk in report.vms[0].disks} == {Reason.CBT}, report.vms[0].error
    for backup in media.view().points[report.vms[0].point or 0].point.disks:
        restored = tmp_path / f"{backup.disk.name}.raw"
        restore_disk(media, backup, restored, format=Format.RAW)
        assert restored.read_bytes() == image.read_bytes()
    blobs = [row for row in control.inventory()["blobs"] if row["account"] == "oddnames"]
    assert sorted(row["name"] for row in blobs) == sorted(NAMES * 2)
    control.delete_vm("odd", with_disks=True)
