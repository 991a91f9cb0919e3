"""Imports run one way, and none hides inside a function."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mtsft_preproc"

#: From the bottom up; a module may import from its own room and from those above it in this list.
ROOMS = [
    "_version", "errors", "registry", "stages", "hashing", "sealed", "timings", "interpreter",
    "engines", "dialogue", "config", "indexed", "layout", "readers", "handlers", "tokenization",
    "templates", "masking", "truncation", "encoding", "parts", "permutation", "dealing", "packing",
    "mixing", "splitting", "mix_spec", "sources", "plan", "tasks", "lock", "duplicates", "survey",
    "arrange", "gather", "ledger", "encoded", "merge", "manifest", "publish", "work", "progress",
    "watch", "making", "finish", "pipeline", "join", "repack", "inspection", "torch_data", "cli",
]  # fmt: skip
#: Rooms that may import only these.
CLOSED = {"torch_data": {"indexed", "errors"}, "indexed": {"errors"}, "errors": set()}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def own_imports(tree: ast.AST) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found.append((node.module or "", node.lineno))
        elif isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
    return [(name, line) for name, line in found if name.split(".")[0] == "mtsft_preproc"]


def test_every_room_has_its_place() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return  # the package's front door names what lies anywhere
    for name, line in own_imports(ast.parse(path.read_text("utf-8"))):
        room = room_of(name)
        if room == own:
            continue
        assert ROOMS.index(room) < ROOMS.index(own), f"{path.name}:{line} imports {name}"
        assert own not in CLOSED or room in CLOSED[own], f"{path.name}:{line} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_imports_from_the_package(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert not own_imports(node), f"{path.name}:{node.lineno} {node.name}"


def test_modules_of_one_room_make_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        name = ".".join(["mtsft_preproc", *path.relative_to(PACKAGE).with_suffix("").parts])
        if name.endswith("__init__"):
            continue
        graph[name] = {target for target, _ in own_imports(ast.parse(path.read_text("utf-8")))}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
