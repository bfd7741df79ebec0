"""The lock files, the Makefile, the Dockerfile, and the scripts around them."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.config.config import WebConfig
from exporter.daemon import revision
from scripts.audit import verdict
from scripts.bill import differences
from tests.programs import require

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]

# The sources of each lock file.
LOCKED = {
    "requirements.lock": RUNTIME,
    "requirements-dev.lock": RUNTIME + PROJECT["dependency-groups"]["dev"],
    "requirements-build.lock": PROJECT["dependency-groups"]["build"],
    "requirements-tools.lock": PROJECT["dependency-groups"]["tools"],
}

PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([A-Za-z0-9.!+]+)")


def pinned(requirements: list[str]) -> dict[str, str]:
    """The versions of `name==version` requirements, by normalised name."""
    found = {}
    for requirement in requirements:
        match = PIN.match(requirement)
        assert match is not None, f"{requirement} is not pinned"
        found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


def entries(lock: str) -> list[str]:
    """The entries of a lock file, each with its hashes and the comment that says which package requires it."""
    parts = re.split(r"^(?=[A-Za-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return parts[1:]


# -- lock files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKED)
def test_a_lock_file_pins_what_pyproject_names_at_the_same_versions(lock: str) -> None:
    locked = pinned(entries(lock))
    assert {name: locked.get(name) for name in pinned(LOCKED[lock])} == pinned(LOCKED[lock])


@pytest.mark.parametrize("lock", LOCKED)
def test_a_lock_file_holds_only_required_packages(lock: str) -> None:
    wanted_directly = {name for entry in entries(lock) for name in pinned([entry]) if re.search(r"# +(via )?hms-exporter", entry)}
    assert wanted_directly == set(pinned(LOCKED[lock]))


@pytest.mark.parametrize("lock", LOCKED)
def test_every_package_of_a_lock_file_has_its_hashes(lock: str) -> None:
    assert all("--hash=sha256:" in entry for entry in entries(lock))


@pytest.mark.parametrize("lock", LOCKED)
def test_a_lock_file_names_no_place_to_load_from(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_the_tests_run_on_the_versions_that_users_get() -> None:
    runtime, dev = pinned(entries("requirements.lock")), pinned(entries("requirements-dev.lock"))
    assert {name: dev.get(name) for name in runtime} == runtime


def test_the_build_backend_is_the_same_for_pip_and_for_the_image() -> None:
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


# -- Makefile -----------------------------------------------------------------------------------------------------------


def make(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": path if path is not None else os.environ["PATH"], "HOME": str(folder)}
    command = [require("make"), *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the Makefile and the lock files in a new folder."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("Makefile", *LOCKED):
        shutil.copy(ROOT / name, folder)
    return folder


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_make_help_lists_every_target(clone: Path) -> None:
    declared = {name for line in re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE) for name in line.split()}
    listed = set(re.findall(r"^  make ([a-z]+) ", make(clone, "help").stdout, re.MULTILINE))
    assert listed == declared
    assert make(clone).stdout == make(clone, "help").stdout


def test_make_takes_the_first_python_that_works_and_is_new_enough(clone: Path, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    program(bin_, "python3.13", 'echo "pyenv: python3.13: command not found" >&2; exit 127')
    program(bin_, "python3.12", f'exec {sys.executable} "$@"')
    program(bin_, "python3", "exit 1")
    ran = make(clone, "--dry-run", ".venv/bin/python", path=f"{bin_}:/usr/bin:/bin")
    assert "python3.12 -m venv" in ran.stdout


def test_make_says_what_it_takes_when_there_is_no_such_python(clone: Path, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    for name in ("python3.13", "python3.12", "python3.11", "python3", "python"):
        program(bin_, name, "exit 1")
    ran = make(clone, "demo", path=f"{bin_}:/usr/bin:/bin")
    assert ran.returncode != 0
    assert "Python 3.11 or later" in ran.stderr
    assert "make PYTHON=" in ran.stderr
    assert not (clone / ".venv").exists()


def test_make_installs_once_and_again_only_when_a_lock_file_changes(clone: Path) -> None:
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(sys.executable)
    assert "pip install" in make(clone, "--dry-run", "demo").stdout
    for stamp in (".run", ".dev"):
        (clone / ".venv" / stamp).touch()
    assert make(clone, "--dry-run", "demo").stdout == ".venv/bin/python -m exporter demo \n"
    assert "pip install" not in make(clone, "--dry-run", "test").stdout
    later = (clone / ".venv/.dev").stat().st_mtime + 1
    os.utime(clone / "requirements-dev.lock", (later, later))
    assert make(clone, "--dry-run", "test").stdout.count("pip install") == 1


@pytest.mark.slow
def test_everything_that_make_installs_is_checked_against_its_hash(clone: Path) -> None:
    planned = make(clone, "--dry-run", "test", "lock", "demo").stdout
    installs = [line for line in planned.splitlines() if "pip install" in line]
    assert len(installs) == 3
    assert all("--require-hashes" in line for line in installs)


# -- image --------------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A line of a Dockerfile: its instruction and its arguments."""

    instruction: str
    text: str


def stages(dockerfile: str) -> list[list[Step]]:
    """The stages of the Dockerfile, without the lines before the first FROM."""
    logical = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Step]] = []
    for line in filter(None, map(str.strip, logical.splitlines())):
        instruction, _, text = line.partition(" ")
        if instruction == "FROM":
            found.append([])
        if found:
            found[-1].append(Step(instruction, text.strip()))
    return found


DOCKERFILE = (ROOT / "Dockerfile").read_text()
BUILD, FINAL = stages(DOCKERFILE)


def texts(stage: list[Step], instruction: str) -> list[str]:
    return [step.text for step in stage if step.instruction == instruction]


def test_the_image_starts_from_one_exact_version_in_both_stages() -> None:
    base = re.search(r"^ARG PYTHON_IMAGE=python:(\S+)$", DOCKERFILE, re.MULTILINE)
    assert base is not None
    assert re.fullmatch(r"3\.\d+\.\d+-slim-[a-z]+", base[1])
    assert [texts(stage, "FROM")[0].split()[0] for stage in (BUILD, FINAL)] == ["${PYTHON_IMAGE}"] * 2


def test_files_that_the_image_copies_exist_and_are_sent_to_the_engine() -> None:
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignore[0] == "*"
    sent = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = {source for text in texts(BUILD, "COPY") for source in text.split()[:-1]}
    assert copied == sent
    assert all((ROOT / source).exists() for source in copied)
    assert [text.split()[0] for text in texts(FINAL, "COPY")] == ["--from=build"]
    assert not texts(BUILD, "ADD") + texts(FINAL, "ADD")


def test_nothing_gets_into_the_image_without_its_hash_but_the_exporter_itself() -> None:
    commands = [command.strip() for text in texts(BUILD, "RUN") for command in text.split("&&") if " pip " in command]
    assert len(commands) == 4
    for command in commands:
        hashed = "--require-hashes" in command and "--only-binary :all:" in command
        ours = "--no-deps" in command and ("--no-build-isolation" in command or "--no-index" in command)
        assert hashed or ours, command


def test_the_image_runs_the_exporter_as_nobody_in_particular_and_keeps_its_state_in_a_volume() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", texts(FINAL, "USER")[-1])
    assert texts(FINAL, "VOLUME") == texts(FINAL, "WORKDIR") == ["/data"]
    assert json.loads(texts(FINAL, "ENTRYPOINT")[0]) == ["hms-exporter"]
    assert texts(FINAL, "EXPOSE") == [str(WebConfig().listen_address[0].port)]
    assert texts(FINAL, "STOPSIGNAL") == ["SIGTERM"]


def test_the_image_tells_the_exporter_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "HMS_EXPORTER_REVISION=${HMS_EXPORTER_REVISION}" in " ".join(texts(FINAL, "ENV"))
    monkeypatch.setenv("HMS_EXPORTER_REVISION", "1a2b3c")
    assert revision() == "1a2b3c"


def test_values_that_differ_between_commits_come_last_so_that_layers_stay() -> None:
    first = next(index for index, step in enumerate(FINAL) if step.instruction == "ARG")
    assert {step.instruction for step in FINAL[first:]} == {"ARG", "ENV", "LABEL"}
    assert not texts(BUILD, "ARG")


@pytest.mark.parametrize(("changed", "later"), [("docs/a.md", False), ("exporter/b.py", True)])
def test_a_commit_that_changes_nothing_in_the_image_leaves_its_layers_as_they_were(tmp_path: Path, changed: str, later: bool) -> None:
    """Engines write the given time into each file of a layer."""
    program(tmp_path / "bin", "buildah", 'printf "%s\\n" "$@"')
    folder = tmp_path / "clone"
    for name in ("scripts/image", ".dockerignore", "Dockerfile", "exporter/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)

    def commit_and_build(moment: int) -> tuple[str, str]:
        author = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dates = {"GIT_AUTHOR_DATE": f"{moment} +0000", "GIT_COMMITTER_DATE": f"{moment} +0000"}
        environ = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "IMAGE_ENGINE": "buildah", **author, **dates}
        for command in (["git", "init", "-q"], ["git", "add", "."], ["git", "commit", "-qm", "x"]):
            subprocess.run(command, cwd=folder, env=environ, check=True)
        ran = subprocess.run([folder / "scripts/image"], env=environ, capture_output=True, text=True, check=True).stdout.splitlines()
        (created,) = [line.partition("=")[2] for line in ran if line.startswith("HMS_EXPORTER_CREATED=")]
        return ran[ran.index("--timestamp") + 1], created

    assert commit_and_build(1_700_000_000) == ("1700000000", "2023-11-14T22:13:20Z")
    (folder / changed).parent.mkdir(exist_ok=True)
    (folder / changed).write_text("")
    assert commit_and_build(1_700_000_060) == ("1700000060" if later else "1700000000", "2023-11-14T22:14:20Z")


@pytest.mark.parametrize("label", ["title", "description", "licenses", "version", "revision", "source", "created"])
def test_the_image_bears_the_usual_labels(label: str) -> None:
    assert f"org.opencontainers.image.{label}=" in " ".join(texts(FINAL, "LABEL"))


def test_scripts_image_passes_every_argument_of_the_image() -> None:
    told = {text.partition("=")[0] for text in texts(FINAL, "ARG")}
    assert set(re.findall(r"--build-arg \"(HMS_\w+)=", (ROOT / "scripts/image").read_text())) == told


def test_the_health_check_of_the_image_is_the_exporters_own_command() -> None:
    flags, _, command = texts(FINAL, "HEALTHCHECK")[0].partition("CMD ")
    assert json.loads(command) == ["hms-exporter", "check", "--healthy"]
    assert "--interval=5s" in flags, "what waits for it starts soon"


def test_a_health_check_does_not_load_the_client_of_the_api(tmp_path: Path) -> None:
    """It runs every few seconds, and loading the client would double its time."""
    code = "import sys; from exporter.cli import main; main(['check', '--healthy']); print(*sys.modules, sep='\\n')"
    environment = {"HMS_ACCESS_KEY": "a", "HMS_SECRET": "b", "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert {"requests", "schedule", "sqlite3"} & set(ran.stdout.splitlines()) == set()


# -- the real image -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image() -> str:
    """The name of the image that .ci/run has built."""
    name = os.environ.get("HMS_IMAGE")
    if name is None:
        pytest.skip("HMS_IMAGE names no image; `.ci/run` builds one")
    return name


def in_image(image: str, *command: str) -> str:
    made = subprocess.run(["buildah", "from", image], capture_output=True, text=True, check=True)
    container = made.stdout.strip()
    try:
        ran = subprocess.run(
            ["buildah", "run", "--isolation=chroot", container, "--", *command], capture_output=True, text=True, check=False, timeout=60
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout
    finally:
        subprocess.run(["buildah", "rm", container], capture_output=True, check=False)


def test_the_exporter_in_the_image_runs_as_nobody_and_carries_its_dashboards_and_rules(image: str) -> None:
    assert re.fullmatch(r"hms-exporter \d+\.\d+\.\d+\n", in_image(image, "hms-exporter", "--version"))
    assert in_image(image, "id", "-u") == "65532\n"
    count = "from exporter.commands.assets import carried; print(len(carried('dashboards')), len(carried('rules')))"
    expected = len(list((ROOT / "grafana/dashboards").glob("*.json"))), len(list((ROOT / "prometheus/rules").glob("*.yml")))
    assert in_image(image, "python", "-c", count) == "{} {}\n".format(*expected)


def test_the_demo_in_the_image_is_healthy_by_its_own_check(image: str) -> None:
    script = """
        hms-exporter demo & demo=$!
        tries=0
        until hms-exporter check --healthy; do tries=$((tries + 1)); [ $tries -lt 30 ] || exit 1; sleep 0.5; done
        kill $demo; wait $demo
        ! hms-exporter check --healthy
    """
    said = in_image(image, "sh", "-c", script)
    assert "Healthy: healthy\n" in said
    assert said.splitlines()[-1].startswith("Not healthy: 127.0.0.1:10100: Connection refused")


# -- scripts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "shell"), [("scripts/fetch-tools", "sh"), ("scripts/image", "sh"), ("scripts/base-image", "sh"), (".ci/run", "bash")]
)
def test_a_script_can_be_run_and_parsed(path: str, shell: str) -> None:
    assert (ROOT / path).stat().st_mode & stat.S_IXUSR
    assert subprocess.run([shell, "-n", ROOT / path], capture_output=True, text=True, check=False).stderr == ""


def test_no_file_of_the_packaging_names_a_registry() -> None:
    hosts = re.compile(r"(pypi|pythonhosted|debian|docker|ghcr|quay)\.(org|io)", re.IGNORECASE)
    names = [
        "Makefile",
        "Dockerfile",
        ".ci/run",
        "pyproject.toml",
        "hatch_build.py",
        *(f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir()),
    ]
    assert [name for name in names if not fnmatch.fnmatch(name, "*__pycache__*") and hosts.search((ROOT / name).read_text())] == []


AUDITED = {"name": "h11", "version": "0.16.0", "vulns": []}
SKIPPED = {"name": "schedule", "skip_reason": "Dependency not found"}
VULNERABLE = {"name": "urllib3", "version": "2.8.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.8.1"]}]}


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        ([AUDITED], (True, ["No known vulnerability in any of 1 packages"])),
        ([AUDITED, VULNERABLE], (False, ["urllib3 2.8.0: PYSEC-1, fixed in 2.8.1"])),
        ([AUDITED, SKIPPED], (True, ["NOT AUDITED: the advisory database had no answer about 1 of 2 packages"])),
        (
            [VULNERABLE, SKIPPED],
            (
                False,
                ["urllib3 2.8.0: PYSEC-1, fixed in 2.8.1", "NOT AUDITED: the advisory database had no answer about 1 of 2 packages"],
            ),
        ),
    ],
)
def test_the_audit_fails_for_known_vulnerabilities_and_tells_what_it_could_not_check(
    packages: list[dict[str, Any]], expected: tuple[bool, list[str]]
) -> None:
    assert verdict({"dependencies": packages}) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([("PyYAML", "6.0.3"), ("charset.normalizer", "3.5.2")], []),
        ([("PyYAML", "6.0.3")], ["not in the bill: charset-normalizer 3.5.2"]),
        (
            [("pyyaml", "6.0.2"), ("charset-normalizer", "3.5.2")],
            ["not in the bill: pyyaml 6.0.3", "not in the lock: pyyaml 6.0.2"],
        ),
        ([("pyyaml", "6.0.3"), ("charset-normalizer", "3.5.2"), ("pip", "25.0")], ["not in the lock: pip 25.0"]),
    ],
)
def test_a_bill_of_materials_must_list_what_is_pinned_and_nothing_else(parts: list[tuple[str, str]], expected: list[str]) -> None:
    lock = "# a comment: a==1\npyyaml==6.0.3 \\\n    --hash=sha256:0\ncharset-normalizer==3.5.2 ; python_version > '3' \\\n"
    bill = {
        "components": [{"name": name, "version": version} for name, version in parts],
        "metadata": {"component": {"name": "hms-exporter"}},
    }
    assert differences(bill, lock) == expected
