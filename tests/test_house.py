"""The layout of the package: which room may import from which, and how large a room may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "exporter"

# The rooms from which each room may import, besides itself.
ARROWS = {
    "times": set(),
    "notify": set(),
    "logs": {"times"},
    "config": {"times"},
    "hms": {"times", "logs", "config"},
    "counting": {"times", "config", "hms"},
    "state": {"times", "logs", "config", "hms", "counting"},
    "publish": {"times", "logs", "config", "hms", "counting"},
    "polling": {"times", "logs", "config", "hms", "counting", "state", "publish"},
    "web": {"times", "logs", "config", "publish"},
    "daemon": {"times", "logs", "notify", "config", "hms", "counting", "state", "publish", "polling", "web"},
    "simulator": {"times", "logs"},
}
ARROWS["commands"] = {*ARROWS}
ARROWS["cli"] = {*ARROWS} - {"simulator"}
ARROWS["__main__"] = {"cli"}

IMPURE = {"requests", "urllib3", "sqlite3", "psycopg", "schedule", "time", "threading", "queue", "socket", "asyncio"}
PURE_ROOMS = ("counting", "times")

MOST_LINES = 400
LONG, MOST_LONG = 350, 3
MOST_CLASS_LINES = 300
MOST_FUNCTION_LINES = 60


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package, with the room it is in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


@cache
def tree(path: Path) -> ast.Module:
    """A module's syntax."""
    return ast.parse(path.read_text())


def imported(path: Path) -> set[str]:
    """The dotted names of a module's imports, including those inside functions and those for types only."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_of(names: set[str]) -> set[str]:
    """The rooms of the package among imported names, without `from exporter import __version__`."""
    rooms = {name.split(".")[1] for name in names if name.startswith("exporter.")}
    return rooms - {"__version__"}


@pytest.mark.parametrize(("room", "path"), list(modules()), ids=lambda value: str(value) if isinstance(value, str) else value.stem)
def test_a_module_imports_only_from_the_rooms_below_its_own(room: str, path: Path) -> None:
    beyond = rooms_of(imported(path)) - {room} - ARROWS[room]
    assert not beyond, f"{path.relative_to(ROOT)} must not import from {sorted(beyond)}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for _, path in modules()}
    arrows = {
        name: {found for found in (target if target in names else target.rpartition(".")[0] for target in imported(path)) if found in names}
        for name, path in names.items()
    }
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for target in sorted(arrows[name] - {name}):
                walk(target, (*way, name))
            done.add(name)

    for name in names:
        walk(name, ())


@pytest.mark.parametrize(("room", "path"), [(r, p) for r, p in modules() if r in PURE_ROOMS], ids=lambda v: getattr(v, "stem", str(v)))
def test_a_pure_room_knows_no_socket_file_thread_or_clock(room: str, path: Path) -> None:
    found = {name.partition(".")[0] for name in imported(path)} & IMPURE
    assert not found, f"{room} is pure, but {path.name} imports {sorted(found)}"


def _longest(kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> list[tuple[int, str]]:
    """Every class or function with its lines, the longest first."""
    found = []
    for _, path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, kind):
                assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                found.append(((node.end_lineno or 0) - node.lineno + 1, f"{path.relative_to(ROOT)}: {node.name}"))
    return sorted(found, reverse=True)


def test_no_file_is_too_long() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for _, path in modules()}
    assert not {path: count for path, count in lines.items() if count > MOST_LINES}
    long = {path: count for path, count in lines.items() if count > LONG}
    assert len(long) <= MOST_LONG, long


def test_no_class_is_too_long() -> None:
    assert not [one for one in _longest(ast.ClassDef) if one[0] > MOST_CLASS_LINES]


def test_no_function_is_too_long() -> None:
    """Ruff (C901) checks that none is too complex."""
    assert not [one for one in _longest((ast.FunctionDef, ast.AsyncFunctionDef)) if one[0] > MOST_FUNCTION_LINES]


def test_at_most_eight_modules_lie_outside_the_wings() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_every_wing_says_what_it_is_for() -> None:
    for folder in sorted(path.parent for path in PACKAGE.rglob("__init__.py")):
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


def test_help_answers_without_loading_what_it_does_not_need() -> None:
    """A subcommand imports its modules when it runs, so `--help` loads neither HTTP nor SQLite."""
    script = "import sys; from exporter import cli; print(sorted({'requests', 'sqlite3', 'h11', 'msgspec'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
