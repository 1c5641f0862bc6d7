"""Search every scenario and every variant, and write what was covered: python -m tests.protocol --help"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.protocol.explorer import Exploration, explore
from tests.protocol.model import Rules
from tests.protocol.scenarios import QUICK, TAKES_MINUTES
from tests.protocol.variants import LOSING, NEEDED_FOR_MORE_THAN_DATA


def main() -> int:
    """0 if the protocol lost nothing and each variant did what is said of it, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.protocol")
    parser.add_argument("--soak", action="store_true", help="also the scenarios that take minutes")
    parser.add_argument("--limit", type=int, default=10_000_000, help="states after which a search gives up")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="write a table to this file")
    parser.add_argument("--traces", action="store_true", help="print the counterexamples")
    asked = parser.parse_args()
    rows = []
    for row, trace in _searched(soak=asked.soak, limit=asked.limit):
        rows.append(row)
        print(_line(row), flush=True)
        if trace and (asked.traces or not row["as expected"]):
            print(trace, flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")
    if asked.markdown:
        asked.markdown.write_text(_table(rows))
    return 0 if all(row["as expected"] for row in rows) else 1


def _searched(*, soak: bool, limit: int) -> Iterator[tuple[dict[str, object], str]]:
    for scenario in (*QUICK, *(TAKES_MINUTES if soak else ())):
        found = explore(scenario, Rules(), limit=limit)
        yield _row(found, "all rules", None), str(found.counterexample or "")
    for variant in (*LOSING, *NEEDED_FOR_MORE_THAN_DATA):
        found = explore(variant.scenario, variant.rules, limit=limit, losses_only=True)
        yield _row(found, variant.title, variant.steps), str(found.counterexample or "")


def _row(found: Exploration, rules: str, expected: int | None) -> dict[str, object]:
    steps = len(found.counterexample.steps) if found.counterexample else None
    return {
        "scenario": found.title,
        "rules": rules,
        "states": found.states,
        "transitions": found.transitions,
        "depth": found.depth,
        "exhausted": found.exhausted,
        "steps to a loss": steps,
        "as expected": steps == expected and (found.exhausted or expected is not None),
        "seconds": round(found.seconds, 2),
    }


def _verdict(row: dict[str, object]) -> str:
    if row["steps to a loss"] is not None:
        return f"lost in {row['steps to a loss']}"
    return "safe" if row["exhausted"] else "not exhausted"


def _line(row: dict[str, object]) -> str:
    figures = f"{row['states']:>9} states {row['transitions']:>9} transitions {row['seconds']:>7} s"
    return f"{_verdict(row):>13} {figures}  {row['rules']}: {row['scenario']}"


def _table(rows: list[dict[str, object]]) -> str:
    head = "| rules | scenario | states | transitions | depth | result |\n|---|---|---:|---:|---:|---|\n"
    keys = ("rules", "scenario", "states", "transitions", "depth")
    lines = (" | ".join([*(str(row[key]) for key in keys), _verdict(row)]) for row in rows)
    return head + "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
