"""Years of backups, retention and pruning on one media, with faults on many days. (F63.)

Every day ends with the same questions: do all points restore, and does the next day go well? And at the
end: is the media still small, and sound to the last byte?
"""

from __future__ import annotations

import datetime as dt
import random
import sys
import tempfile
from pathlib import Path

from tests.faults.small_media import Contents, grow
from tests.media.faulty_store import FaultyStore, Moment
from tests.media.making import EXTENT, NOW, a_disk, new_media, noise, objects, read_point, text
from tests.soak import more_in_ci, rounds, seeded
from vsa.errors import MediaUnusable, TryAgainLater, VsaError
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.retention import Retention
from vsa.transfer.liveness import this_process
from vsa.upkeep.forgetting import Limits, by_policy, forget, plan_forgetting
from vsa.upkeep.prune import carry_out, plan_prune
from vsa.upkeep.verify import Depth, verify

KEEP = Retention(keep_last=2, daily=5, weekly=3, monthly=3, yearly=1)
DISK = a_disk("os", size=200 * EXTENT)
DAY = dt.timedelta(days=1)


class Years:
    """One media, one disk, a clock that the tests turn, and what every point must restore to."""

    def __init__(self, folder: Path, choose: random.Random) -> None:
        self.folder = folder / "media"
        self.scratch = folder
        self.choose = choose
        self.now = NOW
        self.contents: Contents = {}
        self.held: dict[str, Contents] = {}
        self.faults = self.attempts = 0
        new_media(self.folder)

    def opened(self, *, faulty: bool = False) -> Media:
        store = FolderStore(self.folder)
        if not faulty:
            return Media(store, write=True, clock=lambda: self.now)
        strikes = self.choose.randrange(1, 60)

        def script(number: int, _method: str, _name: str) -> tuple[Moment, Exception] | None:
            if number != strikes:
                return None
            self.faults += 1
            kind = self.choose.choice([TryAgainLater("lost"), MediaUnusable("full")])
            return self.choose.choice(list(Moment)), kind

        return Media(FaultyStore(store, script), write=True, clock=lambda: self.now)

    def day(self) -> None:
        """The guest writes; the job of the night is tried until it succeeds, the first time with a fault."""
        self.now += DAY
        changes = {
            at: (noise if self.choose.random() < 0.5 else text)((self.now.isoformat(), at))
            for at in self.choose.sample(range(200), self.choose.randrange(1, 12))
        }
        self.contents = self.contents | changes
        faulty = self.choose.random() < 0.4
        while not self._backed_up(self.opened(faulty=faulty), changes):
            faulty = False

    def _backed_up(self, media: Media, changes: Contents) -> bool:
        self.attempts += 1
        run = f"run-{self.attempts}"
        self.held[run] = self.contents
        try:
            latest = media.view().latest_point_of_disk(DISK.key)
            if latest is None:
                changes = self.contents
            else:
                # An earlier attempt of the same night may have committed all the same.
                before = self.held[media.view().points[latest[0]].run]
                changes = {at: data for at, data in self.contents.items() if before.get(at) != data}
            parent = latest[0] if latest else None
            grow(
                media,
                run,
                DISK,
                changes,
                scratch=self.scratch,
                parent=parent,
                started_at=self.now,
                absorbs=True,
            )
        except VsaError:
            return False
        return True

    def keep(self) -> None:
        """Retention and a prune; the first try may meet a fault."""
        for faulty in (self.choose.random() < 0.5, False):
            media = self.opened(faulty=faulty)
            try:
                plan = plan_forgetting(
                    media, by_policy(lambda _: KEEP), now=self.now, limits=Limits(share=1.0)
                )
                forget(media, plan, now=self.now)
                with tempfile.TemporaryDirectory() as scratch:
                    pruning = plan_prune(media, now=self.now, scratch=Path(scratch), grace=3 * DAY)
                    carry_out(pruning, process=this_process())
            except VsaError:
                continue
            return

    def require_points(self, *, all_of_them: bool) -> None:
        media = self.opened()
        slots = list(media.view().points)
        for slot in slots if all_of_them else slots[-1:]:
            assert read_point(media, slot) == self.held[media.view().points[slot].run], slot

    def require_small(self) -> None:
        """What is stored is not much more than what the points that stay have of their own."""
        media = self.opened()
        view = media.view()
        wanted = {
            (at, data) for made in view.points.values() for at, data in self.held[made.run].items() if data
        }
        logical = sum(len(data) for _, data in wanted)
        stored = sum(
            (self.folder / name).stat().st_size for name in objects(self.folder) if "/packs/" in name
        )
        assert len(view.points) <= 2 + 5 + 3 + 3 + 2 + 7 + 3, len(view.points)
        assert stored < logical + 64 * EXTENT, (stored, logical)


@more_in_ci
def test_years_of_days(tmp_path: Path) -> None:
    choose = seeded("years of days")
    years, days = Years(tmp_path, choose), rounds(14, 100, 2000)
    for number in range(1, days + 1):
        years.day()
        if number % 7 == 0:
            years.keep()
        years.require_points(all_of_them=number % 7 == 0)
    years.require_small()
    scratch = tmp_path / "verify"
    scratch.mkdir()
    report = verify(years.opened(), Depth.BYTES, scratch=scratch, date=years.now.date())
    assert report.is_sound, report.text()
    points = len(years.opened().view().points)
    sys.stdout.write(f"{days} days, {years.attempts} attempts, {years.faults} faults, {points} points left\n")
    assert years.faults > days / 10
