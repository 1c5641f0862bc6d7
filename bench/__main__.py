"""Us against every peer, in one run: `python -m bench [--rounds 5] [--mib 4096]`, or `make bench`.

Makes an image of real files and changed versions of it, serves it as a managed disk of a simulated Azure, and
backs it up and restores it with the engine and with every peer that is installed, interleaved. Results and a
page go to bench/results after every round; interrupted, the rounds before stay. `--add` plays more rounds.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.goals import Verdict, judged, medians
from bench.image import SEED, Images, make_images
from bench.peers import PEERS
from bench.report import PAGE, goal_table, write_page
from bench.results import Results, about
from bench.rounds import OURS, Comparison, failures, missing
from bench.servers import Servers, missing_for_nginx, remove
from bench.us import CHECKOUT, SPARSE, How, Us
from demo.ext4 import TOOLS, find_tool
from vsa.ranges import MIB

_ROOM = 6
"""What a run needs on disk, in sizes of the image."""
_INTERRUPTED = 130
_PEER_NAMES = tuple(peer.name for peer in PEERS)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all rounds were played, 1 if a measure of ours failed, 2 if they cannot be played, 130 if they
    were interrupted."""
    options = _parser().parse_args(arguments)
    if complaint := _complaint(options):
        print(f"bench: {complaint}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say = _Said()
    images = make_images(options.folder / "images", options.mib, seed=options.seed, say=say)
    results = Results(about(images, PEERS, CHECKOUT), _missing(options))
    if options.add and (complaint := _continue(results, options.results)):
        print(f"bench: {complaint}", file=sys.stderr)
        return 2
    for name, why in results.missing.items():
        say(f"without {name}: {why}")
    try:
        _play(options, images, results, say)
    except KeyboardInterrupt:
        say(f"interrupted; {len(results.rounds)} rounds are kept")
        return _INTERRUPTED
    say("\n".join(["", *goal_table(_judged(results)), "", f"the page: {options.results / PAGE}"]))
    return int(any(not key.startswith(_PEER_NAMES) for key in failures(results)))


def _parser() -> argparse.ArgumentParser:
    names = ", ".join([*OURS, *(peer.name for peer in PEERS)])
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=4096, help="size of the image (4096)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--folder", type=Path, default=CHECKOUT / ".bench", help="where everything is made")
    parser.add_argument("--results", type=Path, default=CHECKOUT / "bench" / "results")
    who = f"separated by commas: {names}; everybody but {SPARSE}, which takes minutes by itself"
    parser.add_argument("--only", metavar="NAMES", default="", help=who)
    parser.add_argument("--add", action="store_true", help="add rounds to the results that are there")
    parser.add_argument("--no-nginx", action="store_true", help="let azsim serve the bytes, by TLS alone")
    return parser


def _complaint(options: argparse.Namespace) -> str:
    known = {*OURS, *(peer.name for peer in PEERS)}
    if unknown := _names(options) - known:
        return f"nobody is called {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}"
    if absent := [tool for tool in TOOLS if find_tool(tool) is None]:
        return f"{', '.join(absent)} not found: apt-get install e2fsprogs"
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(options.folder).free) < _ROOM * options.mib * MIB:
        return (
            f"{options.folder} has {free // MIB} MiB free, needs {_ROOM * options.mib}: name another --folder"
        )
    return ""


def _names(options: argparse.Namespace) -> set[str]:
    """Who was asked for by name; nobody means everybody, but for what takes minutes by itself."""
    return set(filter(None, options.only.split(",")))


def _missing(options: argparse.Namespace) -> dict[str, str]:
    found = missing(PEERS)
    why = "left out by --no-nginx" if options.no_nginx else missing_for_nginx()
    if why:
        found["nginx"] = f"{why}. azsim serves the bytes: nothing is measured without TLS"
    if find_tool("curl") is None:
        found["curl"] = "apt-get install curl"
    return found


def _continue(results: Results, folder: Path) -> str:
    """Take over the rounds that are there; a complaint if they were played on something else."""
    before = Results.read(folder)
    if before is None:
        return ""
    if before.about != results.about:
        told = [name for name, value in results.about.items() if before.about.get(name) != value]
        return f"the rounds in {folder} are of another {', '.join(told)}: start anew, without --add"
    results.rounds = before.rounds
    return ""


def _play(options: argparse.Namespace, images: Images, results: Results, say: _Said) -> None:
    folder, names = options.folder, _names(options)
    with ExitStack() as stack:
        for part in ("servers", "us", "peer"):
            remove(folder / part)
            stack.callback(remove, folder / part)
        with_nginx = "nginx" not in results.missing
        servers = stack.enter_context(Servers.running(folder / "servers", with_nginx=with_nginx))
        us = Us(servers, images, folder / "us", say)
        wanted = names or set(OURS)
        if wanted & set(OURS):
            unsealed, sealed = wanted & {"us-tls", "us-plain"}, "us-sealed" in wanted
            us.prepare([How()] * bool(unsealed) + [How(sealed=True)] * sealed)
        comparison = Comparison(
            images=images,
            servers=servers,
            us=us,
            peers=[peer for peer in PEERS if peer.name not in results.missing],
            folder=folder,
            wanted=lambda name: name in names if names else name != SPARSE,
            say=say,
        )
        begin = len(results.rounds) + 1
        for number in range(begin, begin + options.rounds):
            results.rounds.append(comparison.play(number, first=number == begin))
            results.write(options.results)
            write_page(results, options.results)


def _judged(results: Results) -> list[Verdict]:
    found = medians(done.measures for done in results.rounds)
    return judged(found, results.changed, results.about["cores"])


class _Said:
    """Prints with the time since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        print(f"{minutes:3}:{seconds:02}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
