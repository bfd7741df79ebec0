"""docs/commands.md names every command, option and HTTP path of the program, and no other."""

from __future__ import annotations

import ast
import contextlib
import io
import re

import pytest

from exporter import cli
from tests.docs.pages import blocks, page, quoted, rows, section

PAGE = page("docs/commands.md")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z.-]*[a-z]")


def told(*arguments: str) -> str:
    """The output of `--help`."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
        cli.main([*arguments, "--help"])
    assert end.value.code == 0
    return printed.getvalue()


DESCRIBED = [quoted(row["command"])[0].removeprefix("hms-exporter ") for row in rows(PAGE) if "command" in row]
OPTIONS = {name: [flag for row in rows(section(PAGE, name)) for flag in quoted(row["option"])] for name in DESCRIBED}
EVERYWHERE = {"--help", "--version"}


def test_the_page_names_every_command_and_no_other() -> None:
    commands = set(re.findall(r"^ {2,4}([a-z]+)(?: {2,}|$)", told(), re.MULTILINE)) - {"command"}
    assert sorted(DESCRIBED) == sorted(commands)


@pytest.mark.parametrize("command", DESCRIBED)
def test_the_page_names_a_commands_options_and_no_other(command: str) -> None:
    assert sorted(OPTIONS[command]) == sorted(set(FLAG.findall(told(command))) - EVERYWHERE)


def test_the_page_names_the_options_of_the_program() -> None:
    assert set(FLAG.findall(PAGE)) >= EVERYWHERE


def test_the_page_names_every_path_and_no_other() -> None:
    constants = [node.value for node in ast.walk(ast.parse(page("exporter/web/routes.py"))) if isinstance(node, ast.Constant)]
    served = {value for value in constants if isinstance(value, str) and value.startswith("/")}
    assert {quoted(row["path"])[0].split()[-1] for row in rows(section(PAGE, "HTTP paths"))} == served


@pytest.mark.parametrize("path", ["README.md", "docs/usage.md", "docs/operations.md", "docs/configuration.md"])
def test_examples_use_commands_and_options_that_exist(path: str) -> None:
    for line in "".join(blocks(page(path), "sh")).splitlines():
        called = re.search(r"\bhms-exporter (.*)", line.partition("#")[0])
        if called is None or "docker" in line:
            continue
        name, *_ = called[1].split()
        assert name in DESCRIBED, line
        assert set(FLAG.findall(called[1])) <= set(OPTIONS[name]), line


def test_the_exit_codes_are_those_of_the_program() -> None:
    codes = {row["exit code"] for row in rows(PAGE) if "exit code" in row}
    assert codes == {"0", str(cli.CANNOT_RUN), str(cli.BAD_CONFIGURATION)}
