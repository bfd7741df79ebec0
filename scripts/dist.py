"""Writes the files of a release into dist/.  Two runs from the same commit write the same bytes.

The files are wheel and sdist, the image's archive if docker, podman or buildah works, a bill of materials, the Helm chart, the
dashboards and rules, and SHA256SUMS.  `make dist` runs it.  REPOSITORY=https://... names the project's home in wheel and image.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterable, Mapping
from pathlib import Path

from scripts import bill

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/hms-exporter"
NO_ENGINE = 3
"""The exit code of scripts/image when no image engine works."""


def version() -> str:
    """The exporter's version."""
    found = re.search(r'^__version__ = "(.*)"$', (ROOT / "exporter/__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def archive(files: Mapping[str, bytes], epoch: int) -> bytes:
    """A .tar.gz of these files that depends only on their names, their contents and `epoch`."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=epoch) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), epoch, 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def chart() -> dict[str, bytes]:
    """The chart's files as `helm package` packs them: Chart.yaml first, and links replaced by their targets."""
    folders = (CHART, *(path for path in sorted(CHART.iterdir()) if path.is_symlink()))
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".md"]
    kept = [path for path in found if path.name not in {"kustomization.yaml", ".helmignore"}]
    kept.sort(key=lambda path: (path != CHART / "Chart.yaml", path))
    return {f"hms-exporter/{path.relative_to(CHART)}": path.read_bytes() for path in kept}


def sums(files: Iterable[Path]) -> str:
    """Checksums as `sha256sum --check` reads them."""
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(files))


def _run(*command: str | Path, **variables: str) -> int:
    finished = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False)  # noqa: S603 (fixed commands)
    return finished.returncode


def _must(*command: str | Path, **variables: str) -> None:
    code = _run(*command, **variables)
    if code:
        sys.exit(f"dist: {command[0]} failed with exit code {code}")


def _bill_of_materials(wheel: Path, target: Path, scratch: Path) -> None:
    """The bill of the image's packages: those of the lock file and the wheel, installed into a new environment."""
    venv.create(scratch / "image", with_pip=False)
    python = scratch / "image/bin/python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check", "--no-deps")
    _must(*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", ROOT / "requirements.lock")
    _must(*pip, "--no-index", wheel)
    tool = ROOT / ".tools/venv/bin/cyclonedx-py"
    _must(tool, "environment", "--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "-o", target, python)
    if bill.main(str(target), str(ROOT / "requirements.lock")):
        sys.exit("dist: the bill of materials does not list what requirements.lock pins")


def main() -> int:
    """Makes all files again."""
    asked = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607 (git is in PATH)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or asked.stdout or 0)
    name = f"hms-exporter-{version()}"
    target = ROOT / "dist"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    same = {"SOURCE_DATE_EPOCH": str(epoch), "HMS_REPOSITORY_URL": os.environ.get("REPOSITORY", "")}
    _must(sys.executable, "-m", "hatchling", "build", "--directory", target, **same)
    (wheel,) = target.glob("*.whl")
    with tempfile.TemporaryDirectory() as scratch:
        _bill_of_materials(wheel, target / f"{name}-sbom.json", Path(scratch))
    dashboards = {f"dashboards/{path.name}": path.read_bytes() for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))}
    rules = {f"rules/{path.name}": path.read_bytes() for path in sorted((ROOT / "prometheus/rules").glob("*.yml"))}
    (target / f"{name}-dashboards.tar.gz").write_bytes(archive(dashboards, epoch))
    (target / f"{name}-rules.tar.gz").write_bytes(archive(rules, epoch))
    # Helm names a chart's package NAME-VERSION.tgz.
    (target / f"{name}.tgz").write_bytes(archive(chart(), epoch))
    code = _run(ROOT / "scripts/image", "--archive", target / f"{name}-image.tar", PYTHON=sys.executable, **same)
    if code == NO_ENGINE:
        sys.stdout.write("No image: neither docker, podman nor buildah works here\n")
    elif code:
        sys.exit(f"dist: scripts/image failed with exit code {code}")
    (target / "SHA256SUMS").write_text(sums(target.iterdir()), encoding="utf-8")
    sys.stdout.write((target / "SHA256SUMS").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
