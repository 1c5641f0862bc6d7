"""Rounds: all of us and every peer, one after the other, in an order that moves on from round to round."""

from __future__ import annotations

import datetime as dt
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.image import Images
from bench.measures import Failed, Measure, Session
from bench.meter import CommandFailed
from bench.peers import Bench, Peer
from bench.results import Results, Round
from bench.servers import Servers, remove
from bench.us import SPARSE, How, Us
from demo.images import data_ranges
from vsa.ranges import MIB

OURS = ("us-tls", "us-plain", "us-unchecked", "us-sealed", "reader", SPARSE)
_PIECE = 4 * MIB


@dataclass(frozen=True)
class Comparison:
    """What plays rounds. `wanted` says of a session's name whether it takes part."""

    images: Images
    servers: Servers
    us: Us
    peers: Sequence[Peer]
    folder: Path
    wanted: Callable[[str], bool]
    say: Callable[[str], None]

    def play(self, number: int, *, first: bool) -> Round:
        """One round, counted from 1. In a command's first, what was stored is restored and compared, and what
        takes minutes by itself has its turn."""
        done = Round(dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), os.getloadavg()[0])
        self.us.verify = first
        sessions = list(self._sessions(number, first=first))
        moved = (number - 1) * 3 % max(len(sessions), 1)
        for name, session in sessions[moved:] + sessions[:moved]:
            self._play(name, session, number, done)
        return done

    def _play(self, name: str, session: Callable[[], Session], number: int, done: Round) -> None:
        os.sync()
        warm(self.images)
        try:
            for found in session():
                self._note(found, number, done)
        except CommandFailed as error:
            self._note(Failed(name, str(error)), number, done)
        finally:
            remove(self._work)

    def _note(self, found: Measure | Failed, number: int, done: Round) -> None:
        if isinstance(found, Failed):
            done.failed[found.key] = found.reason
            self.say(f"round {number}  {found.key:32} FAILED: {found.reason}")
            return
        done.measures[found.key] = found.row()
        stored = "" if found.stored is None else f"  {found.stored / MIB:8.1f} MiB stored"
        self.say(f"round {number}  {found.key:32} {found.wall:7.2f} s  {found.cpu:7.2f} s CPU{stored}")

    def _sessions(self, number: int, *, first: bool) -> Iterator[tuple[str, Callable[[], Session]]]:
        """Those that take part, a peer and one of ours by turns."""
        peers: list[tuple[str, Callable[[], Session]]] = [
            (peer.name, lambda peer=peer: peer.session(self._bench(verify=first)))  # type: ignore[misc]
            for peer in self.peers
            if self.wanted(peer.name)
        ]
        ours = [(name, play) for name, play in self._ours(number, first=first).items() if self.wanted(name)]
        for pair in itertools.zip_longest(peers, ours):
            yield from (item for item in pair if item is not None)

    def _ours(self, number: int, *, first: bool) -> Mapping[str, Callable[[], Session]]:
        us, transports = self.us, self.servers.transports
        found: dict[str, Callable[[], Session]] = {
            f"us-{transport}": lambda transport=transport: us.backups(How(transport))  # type: ignore[misc]
            for transport in transports
        }
        found["us-unchecked"] = lambda: itertools.chain.from_iterable(
            us.backups(How(transport, unchecked=True), incrementals=False) for transport in transports
        )
        found["us-sealed"] = lambda: us.backups(How(sealed=True))
        found["reader"] = lambda: itertools.chain.from_iterable(
            us.readers(transport, ours_first=bool(number % 2)) for transport in transports
        )
        if first:
            found[SPARSE] = us.sparse
        return found

    def _bench(self, *, verify: bool) -> Bench:
        remove(self._work)
        self._work.mkdir(parents=True)
        return Bench(self._work, self.images, verify=verify)

    @property
    def _work(self) -> Path:
        return self.folder / "peer"


def warm(images: Images) -> None:
    """Bring every version into the page cache: nobody is measured for the disk of this machine."""
    buffer = bytearray(_PIECE)
    for version in (images.first, *images.changed.values()):
        with version.path.open("rb", buffering=0) as file:
            for item in data_ranges(version.path):
                file.seek(item.offset)
                for _ in range(-(-item.length // _PIECE)):
                    file.readinto(buffer)


def missing(peers: Sequence[Peer]) -> dict[str, str]:
    """How to install those that are not here."""
    return {peer.name: peer.install for peer in peers if peer.program is None}


def failures(results: Results) -> dict[str, str]:
    """What failed in any round, with the last reason."""
    return {key: reason for done in results.rounds for key, reason in done.failed.items()}
