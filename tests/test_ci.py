"""What is left to CI is played there: a test that no command runs proves nothing."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_file_with_tests_that_ci_alone_plays_is_among_those_that_it_plays() -> None:
    left_to_ci = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if path != Path(__file__) and re.search(r"only_in_ci|DEPTH < 1", path.read_text())
    }
    lists = (ROOT / "Makefile").read_text().split("\nENGINE_ROUNDS := ", 1)[1].split("\nsoak:", 1)[0]
    played = {word for word in lists.split() if word.startswith("tests/") and word.endswith(".py")}
    assert left_to_ci - played == set()
