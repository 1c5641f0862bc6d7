"""The blocks of the local installation, saved on the server that PREFECT_API_URL names.

    python -m demo.local_blocks AZURE MEDIA      the folders of the simulated Azure and of the backup media

Media and main subclient are called `production`, as in prefect.yaml, so that its schedules fit.
"""

from __future__ import annotations

import sys
from pathlib import Path

from azsim.control import Control
from demo.installation import PROXIES
from demo.saved_blocks import save_blocks
from vsa.subclient import Operator, Rule, RuleGroup, Subclient, VmField

MEDIA = "production"


def subclients() -> tuple[Subclient, ...]:
    """`production` under CBT, and `archive`, whose unmanaged disks are compared in every job."""
    return (
        Subclient(name="production", groups=(_tagged("yes"),)),
        Subclient(name="archive", groups=(_tagged("archive"),), method="crc"),
    )


def _tagged(value: str) -> RuleGroup:
    return RuleGroup(rules=(Rule(field=VmField.TAG, operator=Operator.EQUALS, tag="backup", value=value),))


def main() -> None:
    azure, media = map(Path, sys.argv[1:])
    save_blocks(
        Control(azure).endpoint,
        media.resolve(),
        media_name=MEDIA,
        proxies=PROXIES,
        subclients=subclients(),
        keep=True,
    )


if __name__ == "__main__":
    main()
