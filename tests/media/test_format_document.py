"""docs/media-format.md names all that is on media: each member of each document, and each word one may be."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from enum import Enum
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from vsa.media import entries, facts
from vsa.media.checkpoint import CheckpointDescription, LatestTime
from vsa.media.descriptor import MediaDescriptor
from vsa.media.digests import DigestsDescription
from vsa.media.entries import Entry
from vsa.media.index import IndexDescription, IndexSegment, PackRef
from vsa.media.keys import KeyDocument
from vsa.media.moves import MovesDescription
from vsa.media.outcomes import StreamOutcome
from vsa.media.records import RecordHead
from vsa.media.signs import Sign
from vsa.media.wrapping import FileWay, PassphraseWay, VaultWay
from vsa.model import (
    AttachedDisk,
    DiskBackup,
    DiskFigures,
    Exclusion,
    IndexRef,
    Intent,
    ObjectRef,
    Point,
    ProcessName,
    SnapshotRef,
    SourceDisk,
    Vm,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "media-format.md").read_text()

ROOTS = (
    *(MediaDescriptor, KeyDocument, Entry, Intent, StreamOutcome, Sign),
    *(RecordHead, IndexDescription, MovesDescription, DigestsDescription, CheckpointDescription),
)
"""All that is stored as JSON by itself."""

TABLES: dict[type[BaseModel], tuple[str, int]] = {
    MediaDescriptor: ("media.json", 0),
    RecordHead: ("Records", 0),
    IndexDescription: ("Indexes", 1),
    Entry: ("Log", 0),
    Point: ("A recovery point", 0),
    Vm: ("A VM", 0),
    AttachedDisk: ("An attached disk", 0),
    SourceDisk: ("A disk", 0),
    DiskBackup: ("A backup of a disk", 0),
    DiskFigures: ("Figures", 0),
    SnapshotRef: ("A snapshot reference", 0),
    ObjectRef: ("References to objects", 0),
    IndexRef: ("References to objects", 1),
    Exclusion: ("An exclusion", 0),
    entries.VmOutcome: ("What became of a VM", 0),
    entries.DiskOutcome: ("What became of a VM", 1),
    Intent: ("Intents", 0),
    ProcessName: ("Intents", 1),
    StreamOutcome: ("Stream documents", 0),
    Sign: ("Liveness objects", 0),
    CheckpointDescription: ("Checkpoints", 2),
    KeyDocument: ("Keys", 0),
}
"""Where each model has a table of its members: the heading, and which of its tables; no members but these."""

PLACES: dict[type[BaseModel], tuple[str, str]] = {
    **{
        body: ("Entries", f"| `{body.model_fields['type'].default}` |")
        for body in get_args(entries.EntryBody)
    },
    entries.SeenName: ("Entries", "| `client` |"),
    entries.ReleasedBase: ("Entries", "| `job` |"),
    entries.Damaged: ("Entries", "| `damage` |"),
    entries.Harm: ("Entries", "| `damage` |"),
    entries.MovedIndex: ("Entries", "| `relocate` |"),
    PackRef: ("Indexes", "| `packs` |"),
    IndexSegment: ("Indexes", "| `segments` |"),
    LatestTime: ("Checkpoints", "| `latest` |"),
    MovesDescription: ("Moves", "Rows ascend by"),
    DigestsDescription: ("Digests", "Apache Parquet, columns"),
    PassphraseWay: ("Keys", "| `passphrase` |"),
    FileWay: ("Keys", "| `file` |"),
    VaultWay: ("Keys", "| `key-vault` |"),
}
"""Where the members of others are named: the heading, and how the paragraph or the line of a table begins."""


def section(heading: str) -> list[str]:
    """The lines below a heading, up to the next one."""
    lines = iter(DOCUMENT.splitlines())
    found = any(re.fullmatch(rf"#+ {re.escape(heading)}", line) for line in lines)
    assert found, f"there is no heading {heading!r}"
    return list(takewhile(lambda line: not line.startswith("#"), lines))


def names_in(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def table(heading: str, number: int) -> dict[str, list[str]]:
    """The cells behind each member's name in one of the tables below a heading."""
    groups: list[list[str]] = [[]]
    for line in section(heading):
        if line.startswith("|"):
            groups[-1].append(line)
        elif groups[-1]:
            groups.append([])
    cells = [[cell.strip() for cell in line.strip("|").split(" |")] for line in groups[number][2:]]
    return {name: row[1:] for row in cells for name in names_in(row[0])}


def paragraph(heading: str, beginning: str) -> str:
    """From the line that begins so to the end of the paragraph, or of that line of a table."""
    lines = section(heading)
    at = next((at for at, line in enumerate(lines) if line.startswith(beginning)), None)
    assert at is not None, f"nothing below {heading!r} begins with {beginning!r}"
    return lines[at] if beginning.startswith("|") else "\n".join(takewhile(bool, lines[at:]))


def parts_of(annotation: object) -> Iterator[Any]:
    """All that an annotation is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from parts_of(part)


def reachable() -> list[type[BaseModel]]:
    found: dict[type[BaseModel], None] = {}
    waiting: list[type[BaseModel]] = list(ROOTS)
    while waiting:
        model = waiting.pop()
        if model not in found:
            found[model] = None
            waiting += [part for part in annotated(model) if is_kind(part, BaseModel)]
    return list(found)


def annotated(model: type[BaseModel]) -> list[Any]:
    return [part for field in model.model_fields.values() for part in parts_of(field.annotation)]


def is_kind(part: object, kind: type) -> bool:
    return isinstance(part, type) and issubclass(part, kind)


def own_members(model: type[BaseModel]) -> set[str]:
    """An index reference is told by what it has besides an object reference."""
    inherited = set(ObjectRef.model_fields) if model is IndexRef else set()
    return set(model.model_fields) - inherited


def test_every_model_that_is_stored_has_its_place() -> None:
    assert set(reachable()) == TABLES.keys() | PLACES.keys()


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
def test_a_table_has_the_members_of_its_model_and_no_others(model: type[BaseModel]) -> None:
    assert table(*TABLES[model]).keys() == own_members(model)


@pytest.mark.parametrize("model", PLACES, ids=lambda model: model.__name__)
def test_all_members_of_a_model_are_named(model: type[BaseModel]) -> None:
    assert own_members(model) - set(names_in(paragraph(*PLACES[model]))) - {"type", "kind"} == set()


WITH_ABSENT = [model for model, (heading, _) in TABLES.items() if "| absent |" in "".join(section(heading))]


@pytest.mark.parametrize("model", WITH_ABSENT, ids=lambda model: model.__name__)
def test_what_may_be_absent_is_said_to_be(model: type[BaseModel]) -> None:
    may = {name for name, cells in table(*TABLES[model]).items() if cells[1]}
    fields = {name: model.model_fields[name] for name in own_members(model)}
    assert may == {name for name, field in fields.items() if field.default is not PydanticUndefined}


def words(annotations: list[Any]) -> set[str]:
    enums = {item.value for part in annotations if is_kind(part, Enum) for item in part}
    literals = {word for part in annotations if get_origin(part) is Literal for word in get_args(part)}
    return {word for word in enums | literals if isinstance(word, str)}


@pytest.mark.parametrize("model", [*TABLES, *PLACES], ids=lambda model: model.__name__)
def test_every_word_that_a_member_may_be_is_named(model: type[BaseModel]) -> None:
    assert words(annotated(model)) <= set(names_in(DOCUMENT))


def test_the_doubts_of_a_checkpoint_are_named() -> None:
    row = next(line for line in section("Checkpoints") if line.startswith("| 8 |"))
    assert {field.name for field in dataclasses.fields(facts.Doubt)} == set(names_in(row))


def test_no_reader_is_sent_to_the_code_for_what_is_on_media() -> None:
    assert "model_json_schema" not in DOCUMENT
