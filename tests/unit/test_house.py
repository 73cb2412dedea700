"""The house rules that can be counted: sizes of rooms, modules and functions, names, types and first words."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
from radon.complexity import cc_visit

from sst2_ray.errors import FailureClass
from sst2_ray.records import Status

PACKAGE = Path(__file__).parents[2] / "sst2_ray"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in MODULES]
FRAGMENTS = re.compile(
    r"(What|Whether|Of|One|That|Those|Who|Whom|Whose|Whoever|By|In|On|As|At|From|With|Where|When|Which|How|True|None)\b"
)
"""First words of docstrings that are fragments: a function's begins with a verb, a class's with a noun phrase."""
WORDS = {str(word) for word in [*Status, *FailureClass]}
WORDS_OF_OTHERS = {"results/store/import_tune.py", "cluster/", "errors.py", "records.py"}
"""Ray's, Kubernetes' or a cloud's own words that happen to be the same."""
PRIVATE = re.compile(r"\bray\.(?:\w+\.)*_\w+|\bray\._\w+")
PRIVATE_ROOMS = ("run/ray/", "cluster/ray_private.py")


def trees(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("name", NAMES)
def test_modules_and_functions_are_short_and_simple(name: str) -> None:
    text = (PACKAGE / name).read_text(encoding="utf-8")
    long = {node.name: lines_of(node) for node in functions(ast.parse(text)) if lines_of(node) > 50}
    assert text.count("\n") <= 300
    assert not long
    assert not {block.name: block.complexity for block in cc_visit(text) if block.complexity > 15}


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_begin_with_a_verb_or_a_noun(name: str) -> None:
    nodes = [
        node
        for node in ast.walk(trees(PACKAGE / name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module)
    ]
    docs = [ast.get_docstring(node) or "" for node in nodes]
    assert not [doc.splitlines()[0] for doc in docs if FRAGMENTS.match(doc)]


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith(tuple(WORDS_OF_OTHERS))])
def test_states_and_failures_are_members_of_their_enums(name: str) -> None:
    found = {
        node.value
        for node in ast.walk(trees(PACKAGE / name))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in WORDS
    }
    assert not found


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith(PRIVATE_ROOMS)])
def test_private_names_of_ray_stand_in_one_place(name: str) -> None:
    code = "\n".join(line for line in (PACKAGE / name).read_text().splitlines() if not line.lstrip().startswith("#"))
    assert not PRIVATE.findall(code)


def test_no_room_holds_more_than_a_fifth_of_the_package() -> None:
    rooms: Counter[str] = Counter()
    for path, name in zip(MODULES, NAMES, strict=True):
        rooms[name.split("/")[0]] += path.read_text(encoding="utf-8").count("\n")
    room, lines = rooms.most_common(1)[0]
    assert lines < 0.2 * sum(rooms.values()), room


def test_fewer_than_100_values_are_of_any_type() -> None:
    uses = sum(isinstance(node, ast.Name) and node.id == "Any" for path in MODULES for node in ast.walk(trees(path)))
    assert uses < 100
