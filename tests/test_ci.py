"""What is left to CI is played there: a test that no command runs proves nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COUNTED = {"rounds", "chosen", "examples"}
"""What of `tests/soak.py` says how much is played."""
FILES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
    if path != Path(__file__) and "node_modules" not in path.parts
}


def paths(variable: str) -> set[str]:
    """The files and folders that a variable of the Makefile names."""
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (words,) = re.findall(rf"^{variable} := (.*)$", text, re.MULTILINE)
    named = {word for word in words.split() if word.startswith("tests/")}
    return named.union(*(paths(other) for other in re.findall(r"\$\((\w+)\)", words)))


def numbers(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls that say how much is played, but of what CI plays no more than `make test`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in COUNTED:
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            in_ci = given.get("in_ci") or (node.args[1] if node.func.id != "chosen" else None)
            if not (isinstance(in_ci, ast.Constant) and in_ci.value is None):
                yield node


def marked(tree: ast.AST) -> set[str]:
    """What of CI's marks is used there."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names & {"only_in_ci", "more_in_ci"}


def every_test(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def test_every_file_of_which_ci_plays_more_is_among_those_that_it_plays() -> None:
    more = {name for name, tree in FILES.items() if marked(tree) or any(numbers(tree))}
    assert "tests/faults/test_schedules.py" in more and "tests/flows/test_signals.py" in more
    assert more - paths("ROUNDS") - paths("PROCESS_TESTS") == set()


@pytest.mark.parametrize("name", [name for name, tree in FILES.items() if any(numbers(tree))])
def test_what_has_a_number_for_ci_is_marked_for_it(name: str) -> None:
    """CI plays what is marked, and nothing else of those files. Other numbers are those of a whole file."""
    tree = FILES[name]
    assert "more_in_ci" in marked(tree)
    whole = [node for node in tree.body if isinstance(node, ast.Assign) and "pytestmark" in ast.dump(node)]
    for test in [] if any(map(marked, whole)) else every_test(tree):
        marks = {name for decorator in test.decorator_list for name in marked(decorator)}
        assert marks or not any(numbers(test)), f"{test.name} is not marked"


def test_every_file_with_rounds_is_played_by_the_soak() -> None:
    in_soak = paths("ALL_ROUNDS")
    have = {name for name, tree in FILES.items() if any(numbers(tree))}
    assert {name for name in have if not any(name.startswith(path) for path in in_soak)} == set()
