"""The page of a run: goals, tables and pictures, and what of it cannot be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.goals import Verdict, judged, medians
from bench.measures import Row
from bench.results import Results
from bench.rounds import failures
from bench.svg import Bar, bars
from vsa.ranges import GIB, MIB

PAGE = "README.md"
_OURS = ("us/", "reader/ours/")

NOT_COMPARABLE = """\
- Peers read a local file from the page cache. We ask a server over HTTP, and it takes its share of the same
  processors: our wall times bear it, our CPU seconds do not; the column "servers" has it.
- Our wall times are those of a running stream process, from the first list that decides what is read to the
  confirmed log entry, audit included; start-up, snapshot and access are told beside. Those of peers are
  whole processes, start-up included, which is 0.1 to 0.5 s. Restores of ours are whole processes, too.
- What a tool has written is durable when its time ends, ours by itself, others by `fsync` within their
  time.
- Snapshots and access cost milliseconds here. Azure takes seconds for them, and 60 MiB/s is its target for
  a blob.
- Bytes come from nginx, which does not look at signatures; lists and everything else from azsim.
- We compute CRC32C and BLAKE3 of each extent and SHA-256 of each pack, look for what is stored already, and
  decode each pack before it is stored ("unchecked" leaves that out, which the engine itself has no switch
  for). borg and benji hash their blocks and store none twice; qemu-img and zstd do neither and know no
  incrementals.
- restic always encrypts and uses SHA-256; compare it with "sealed". borg and benji run without encryption.
- borg and benji work with blocks of 4 MiB, restic with blocks of 512 KiB to 8 MiB, we with extents of 64
  KiB: that decides what an incremental stores.
- With CBT Azure says what has changed. Only benji with hints is told, too; who is not must be compared with
  our CRC, which reads what is allocated, while they read the file (holes are skipped by borg).
- `read` is what we asked the server for, and every byte that a peer read by system calls, of its repository
  too.
- `memory` is the most that a process had resident; of several processes, the sum.
- Without TLS the engine reads nothing; for "plain" its insistence is lifted in the measured process.
- Reading has no peer but curl: four processes of it, whole, against four threads of a process that runs
  already.
"""


@dataclass(frozen=True)
class _Picture:
    """Bars of one figure of all measures whose key has this second part."""

    file: str
    title: str
    unit: str
    wanted: Callable[[str], bool]
    figure: str = "wall"
    scale: float = 1.0


def _what(*names: str) -> Callable[[str], bool]:
    return lambda key: not key.startswith("reader/") and key.split("/")[1] in names


_PICTURES = (
    _Picture("full-wall.svg", "Full backup, wall seconds", " s", _what("full")),
    _Picture("full-cpu.svg", "Full backup, CPU seconds without servers", " s", _what("full"), "cpu"),
    _Picture(
        "incremental-1.svg",
        "Incremental, 1 % changed, wall seconds",
        " s",
        _what("cbt-1", "incremental-1", "hints-1"),
    ),
    _Picture(
        "incremental-0.1.svg",
        "Incremental, 0.1 % changed, wall seconds",
        " s",
        _what("cbt-0.1", "crc-0.1", "incremental-0.1", "hints-0.1"),
    ),
    _Picture(
        "stored.svg",
        "Incremental, 1 % changed, MiB stored",
        " MiB",
        _what("cbt-1", "incremental-1", "hints-1"),
        "stored",
        1 / MIB,
    ),
    _Picture("restore.svg", "Restore, wall seconds, durable", " s", _what("restore")),
    _Picture(
        "memory.svg", "Full backup, peak memory in MiB", " MiB", _what("full", "sparse"), "memory", 1 / MIB
    ),
)


def write_page(results: Results, folder: Path) -> Path:
    """Write the page and its pictures beside the results."""
    found = medians(done.measures for done in results.rounds)
    pictures = [item for item in _PICTURES if any(item.wanted(key) for key in found)]
    for picture in pictures:
        (folder / picture.file).write_text(_drawn(picture, results, found))
    page = folder / PAGE
    page.write_text("\n".join(_page(results, found, pictures)))
    return page


def _page(results: Results, found: Mapping[str, Row], pictures: Sequence[_Picture]) -> Iterator[str]:
    image = results.about["image"]
    yield "# Against peers"
    yield ""
    yield "Written by `make bench`; the figures are in `results.json`. Medians of all rounds."
    yield ""
    yield from _about(results)
    yield ""
    yield "## Goals"
    yield ""
    yield from goal_table(judged(found, results.changed, results.about["cores"]))
    yield ""
    yield "## Figures"
    yield ""
    yield from _table(found)
    yield ""
    yield "Beside the transfer, in wall seconds:"
    yield ""
    yield from _beside(found)
    yield ""
    yield from (f"![{picture.title}]({picture.file})\n" for picture in pictures)
    yield from _readers(found)
    yield "## What is not comparable"
    yield ""
    yield NOT_COMPARABLE
    absent = {**results.missing, **{key: f"failed: {why}" for key, why in failures(results).items()}}
    if absent:
        yield "## What is missing"
        yield ""
        yield from (f"- {name}: {why}" for name, why in absent.items())
        yield ""
    yield (
        f"The image is {image['size'] // MIB} MiB, of which {image['allocated'] // MIB} MiB are allocated, "
        f"SHA-256 {image['sha256']}."
    )
    yield ""


def _about(results: Results) -> Iterator[str]:
    about = results.about
    loads = ", ".join(f"{done.load:.1f}" for done in results.rounds)
    changed = ", ".join(f"{size / MIB:.1f} MiB ({name} %)" for name, size in results.changed.items())
    yield f"- {len(results.rounds)} rounds, load before each: {loads}"
    machine = f"{about['cores']} cores ({about['processor']}), {about['memory'] / GIB:.0f} GiB"
    yield f"- {machine}, kernel {about['kernel']}"
    yield f"- commit {about['commit']}, Python {about['python']}"
    yield f"- changed: {changed}"
    yield from (f"- {name}: {version}" for name, version in about["peers"].items() if version)


def goal_table(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Markdown, a row a goal."""
    yield "| measure | goal | found | |"
    yield "|---|---|---|---|"
    for verdict in verdicts:
        goal = verdict.goal
        wanted = (
            f"at {'least' if goal.least else 'most'} {goal.most:g}{goal.unit if goal.unit != 'x' else ''}"
        )
        shown = "not measured" if verdict.found is None else f"{verdict.found:.3g}{goal.unit}"
        word = {True: "reached", False: "**missed**", None: ""}[verdict.reached]
        yield f"| {goal.name} | {wanted} | {shown} | {word} |"


def _table(found: Mapping[str, Row]) -> Iterator[str]:
    yield "| measure | wall s | CPU s | servers' CPU s | read MiB | stored MiB | memory MiB |"
    yield "|---|---|---|---|---|---|---|"
    for key, row in sorted(found.items(), key=_place):
        if key.startswith("reader/"):
            continue
        cells = [_seconds(row.get(name)) for name in ("wall", "cpu", "servers")]
        cells += [_mib(row.get(name)) for name in ("read", "stored", "memory")]
        yield f"| {key} | {' | '.join(cells)} |"


def _beside(found: Mapping[str, Row]) -> Iterator[str]:
    spans = ("snapshot", "grant", "lists", "changes", "giving back", "whole")
    yield f"| measure | {' | '.join(spans)} |"
    yield f"|---{'|---' * len(spans)}|"
    for key, row in sorted(found.items(), key=_place):
        if "whole wall" in row:
            yield f"| {key} | {' | '.join(_seconds(row.get(f'{span} wall')) for span in spans)} |"


def _readers(found: Mapping[str, Row]) -> Iterator[str]:
    rows = {key: row for key, row in found.items() if key.startswith("reader/")}
    if not rows:
        return
    yield "## Reading alone"
    yield ""
    yield "| reader | MiB/s | CPU s/GiB | servers' CPU s/GiB |"
    yield "|---|---|---|---|"
    for key, row in sorted(rows.items()):
        gib = row["read"] / GIB
        speed = row["read"] / MIB / row["wall"]
        cells = f"{speed:.0f} | {row['cpu'] / gib:.2f} | {row['servers'] / gib:.2f}"
        yield f"| {key.removeprefix('reader/')} | {cells} |"
    yield ""


def _place(item: tuple[str, Row]) -> tuple[str, str]:
    """Measures of the same thing stand together."""
    who, what, *_ = item[0].split("/")
    return (what, item[0]) if who != "reader" else ("~", item[0])


def _drawn(picture: _Picture, results: Results, found: Mapping[str, Row]) -> str:
    shown = []
    for key, row in found.items():
        if not picture.wanted(key) or picture.figure not in row:
            continue
        values = [
            done.measures[key][picture.figure] * picture.scale
            for done in results.rounds
            if picture.figure in done.measures.get(key, {})
        ]
        value = row[picture.figure] * picture.scale
        shown.append(Bar(key, value, (min(values), max(values)), key.startswith(_OURS)))
    return bars(picture.title, picture.unit, shown)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value / MIB:.1f}"
