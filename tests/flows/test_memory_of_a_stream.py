"""The most memory that a stream's process on a proxy has: Prefect, SDKs, buffers, packs and index."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.meter import looking, peak_memory
from deployments.worker import SPARING
from tests.engine.world import random_bytes
from tests.flows.fleet import Fleet
from tests.flows.running_job import RunningJob
from tests.flows.site import PROXIES, Site, managed
from tests.soak import only_in_ci, only_in_soak
from vsa.model import Method
from vsa.ranges import GIB, MIB

pytestmark = [only_in_ci, pytest.mark.timeout(1800)]

TIB = 1024 * GIB
LOOK_SECONDS = 0.05


class Peaks:
    """The peak of each process that was started below the workers, and its environment."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        # The last job's process may be there for a while.
        self._others = frozenset(self._processes())
        self.bytes: dict[int, int] = {}
        self.environments: dict[int, list[str]] = {}

    def _processes(self) -> list[int]:
        return [process for proxy in PROXIES for process in self._fleet[proxy].processes]

    def look(self) -> None:
        """What a process had at most stays to be read until it ends: only its last moments are missed."""
        for process in set(self._processes()) - self._others:
            try:
                environment = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
            except OSError:
                continue
            self.environments[process] = environment
            self.bytes[process] = max(self.bytes.get(process, 0), peak_memory(process))


def _peak_of_a_job(fleet: Fleet, site: Site, **options: object) -> int:
    peaks = Peaks(fleet)
    with looking(peaks.look, every=LOOK_SECONDS):
        state = RunningJob(site, **options).ended()
    assert state.name == "Completed", state.message
    most = max(peaks.bytes, key=lambda process: peaks.bytes[process])
    # The worker has told it to spare memory, and nobody has told it otherwise.
    assert {f"{name}={value}" for name, value in SPARING.items()} <= set(peaks.environments[most])
    sys.stdout.write(f"peak of the stream's process: {peaks.bytes[most] / MIB:.0f} MiB\n")
    return peaks.bytes[most]


def test_a_disk_of_4_gib_takes_no_more_than_256_mib(fleet: Fleet, site: Site) -> None:
    """A quarter of a GiB of noise fills every buffer, and both packs."""
    site.add_vm("web", [managed("web-os", size=4 * GIB)], fill=240 * MIB)
    site.save_blocks()
    assert 160 * MIB < _peak_of_a_job(fleet, site) <= 256 * MIB
    site.write("web-os", 64 * MIB, bytes(range(256)) * (16 * 4096))
    assert 160 * MIB < _peak_of_a_job(fleet, site) <= 256 * MIB
    assert _methods(site) == [Method.FULL, Method.CBT]
    site.require_only_bases()


@only_in_soak
def test_a_disk_of_32_tib_takes_no_more_than_384_mib(fleet: Fleet, site: Site) -> None:
    """Its packs are the largest; what it holds is in many of its 8,192 segments. Its audit is at its least:
    a thousandth of the disk would be read for an hour."""
    site.add_vm("web", [managed("web-data", size=32 * TIB)], fill=64 * MIB)
    for piece in range(1, 96):
        site.write("web-data", piece * 341 * GIB, random_bytes(2 * MIB, piece))
    site.save_blocks(audit_share=0.0, audit_cycle_jobs=10**9)
    assert 160 * MIB < _peak_of_a_job(fleet, site) <= 384 * MIB
    site.write("web-data", 16 * TIB, b"changed" * 4096)
    assert 160 * MIB < _peak_of_a_job(fleet, site) <= 384 * MIB
    assert _methods(site) == [Method.FULL, Method.CBT]
    site.require_only_bases()


def _methods(site: Site) -> list[Method]:
    points = site.media.view().points
    return [points[slot].point.disks[0].method for slot in sorted(points)]
