"""`make dist`: it writes the same bytes twice, with dashboards and rules, and a README that reads well on a package index."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml

from scripts import dist, imagearchive
from tests.programs import require

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "deploy/helm/hms-exporter"


def build(folder: Path, repository: str = "") -> dict[str, bytes]:
    """Builds wheel and sdist as `make dist` does; returns their bytes by suffix."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "HMS_REPOSITORY_URL": repository}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", folder], cwd=ROOT, env=environ, check=True, capture_output=True
    )
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return build(tmp_path_factory.mktemp("dist"))


def metadata(wheel: bytes) -> Message:
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def test_twice_the_same_code_is_twice_the_same_bytes(tmp_path: Path, built: dict[str, bytes]) -> None:
    assert build(tmp_path) == built


def test_a_wheel_has_dashboards_and_rules_and_nothing_of_the_development(built: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(built[".whl"])) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assets = {name: archive.read(name) for name in names if name.startswith("exporter/assets/") and name.endswith((".json", ".yml"))}
    assert {name.partition("/")[0] for name in names} == {"exporter"}
    for kind, folder, pattern in (("dashboards", "grafana/dashboards", "*.json"), ("rules", "prometheus/rules", "*.yml")):
        found = {name.rpartition("/")[2]: content for name, content in assets.items() if f"/{kind}/" in name}
        assert found == {path.name: path.read_bytes() for path in (ROOT / folder).glob(pattern)}


def test_what_is_built_from_the_sdist_is_the_wheel(tmp_path: Path, built: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(built[".gz"])) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", f"{tmp_path}/wheel"]
    subprocess.run(command, cwd=unpacked, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").iterdir()
    assert wheel.read_bytes() == built[".whl"]


def test_the_package_index_is_told_what_it_is_and_for_whom(built: dict[str, bytes]) -> None:
    told = metadata(built[".whl"])
    assert told["Description-Content-Type"] == "text/markdown"
    assert "Programming Language :: Python :: 3.14" in told.get_all("Classifier", [])
    assert "prometheus" in told["Keywords"]
    assert told.get_all("Provides-Extra") == ["postgres"], "development tools are a dependency group"


def test_the_readme_is_whole_on_the_package_index(tmp_path: Path, built: dict[str, bytes]) -> None:
    relative = re.compile(r"\]\((?!https://|#)")
    alone = str(metadata(built[".whl"]).get_payload())
    assert "hms-exporter" in alone
    assert not relative.search(alone)
    told = metadata(build(tmp_path, "https://git.example.org/hms-exporter")[".whl"])
    linked = str(told.get_payload())
    assert not relative.search(linked)
    assert "](https://git.example.org/hms-exporter/blob/HEAD/docs/" in linked
    assert "Source, https://git.example.org/hms-exporter" in told.get_all("Project-URL", [])


def test_the_chart_is_packed_for_helm_and_always_the_same(tmp_path: Path) -> None:
    packed = dist.archive(dist.chart(), 1_700_000_000)
    assert packed == dist.archive(dist.chart(), 1_700_000_000)
    package = tmp_path / "hms-exporter.tgz"
    package.write_bytes(packed)

    def render(chart: Path) -> str:
        command = [
            require("helm"),
            "template",
            "hms",
            str(chart),
            "--set=existingSecret=hms,dashboards.enabled=true,prometheusRule.enabled=true",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert render(package) == render(CHART)
    with tarfile.open(package) as archive:
        first = archive.next()
        assert first is not None
        assert first.name == "hms-exporter/Chart.yaml"
        assert yaml.safe_load(archive.extractfile(first) or b"")["version"] == dist.version()


def test_checksums_are_as_sha256sum_reads_them(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("b")
    (tmp_path / "a").write_text("a")
    (tmp_path / "SHA256SUMS").write_text(dist.sums([tmp_path / "b", tmp_path / "a"]))
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.stdout == "a: OK\nb: OK\n"


EPOCH = 1_700_000_000


def layer(time: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, mtime in (("old", 1), ("new", time)):
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.size, entry.uid, entry.mode = mtime, 4, 65532, 0o640
            archive.addfile(entry, io.BytesIO(b"text"))
    return packed.getvalue()


def saved(path: Path, *, hostname: str, layers: list[bytes], created: str = "2023-11-14T22:13:20Z") -> tuple[list[str], dict[str, bytes]]:
    """Saves an archive as an engine does and rewrites it; returns its tags and files."""
    config = {
        "config": {"Hostname": hostname, "Image": "", "User": "65532"},
        "container": hostname,
        "created": created,
        "history": [{"created": "1970-01-01T00:00:00Z"}, {"created": created}],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
    }
    names = [f"{hostname}-{index}/layer.tar" for index, _ in enumerate(layers)]
    manifest = [{"Config": "config.json", "RepoTags": ["localhost/hms-exporter:1", "hms-exporter:1"], "Layers": names}]
    files = {
        **dict(zip(names, layers, strict=True)),
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
        "repositories": hostname.encode(),
    }
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    imagearchive.rewrite(path, EPOCH)
    with tarfile.open(path) as archive:
        found = {name: (archive.extractfile(name) or io.BytesIO()).read() for name in archive.getnames()}
    (image,) = json.loads(found["manifest.json"])
    assert list(found) == [*image["Layers"], image["Config"], "manifest.json"]
    config = json.loads(found[image["Config"]])
    assert [f"{digest.removeprefix('sha256:')}.tar" for digest in config["rootfs"]["diff_ids"]] == image["Layers"]
    return image["RepoTags"], {"config": found[image["Config"]], **{name: found[name] for name in image["Layers"]}}


def test_an_images_archive_loses_the_containers_names_and_the_name_that_only_one_engine_adds(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", hostname="one", layers=[layer(EPOCH)])
    assert one == saved(tmp_path / "two", hostname="two", layers=[layer(EPOCH)])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    tags, files = one
    assert tags == ["hms-exporter:1"]
    assert json.loads(files["config"])["config"] == {"User": "65532"}
    assert "container" not in json.loads(files["config"])


def test_an_images_archive_bears_the_time_of_the_commit_and_not_of_the_build(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", hostname="one", layers=[layer(EPOCH + 5)], created="2024-01-01T08:00:00.123456789Z")
    assert one == saved(tmp_path / "two", hostname="one", layers=[layer(EPOCH + 99)], created="2025-01-01T08:00:00.123456789Z")
    config, text = one[1].values()
    assert json.loads(config)["created"] == "2023-11-14T22:13:20Z"
    assert [step["created"] for step in json.loads(config)["history"]] == ["1970-01-01T00:00:00Z", "2023-11-14T22:13:20Z"]
    with tarfile.open(fileobj=io.BytesIO(text)) as archive:
        assert [(entry.name, entry.mtime, entry.uid, entry.mode) for entry in archive] == [
            ("old", 1, 65532, 0o640),
            ("new", EPOCH, 65532, 0o640),
        ]


def test_a_layer_of_an_images_archive_stays_as_it_is_where_nothing_is_later(tmp_path: Path) -> None:
    base = layer(7)
    _, files = saved(tmp_path / "one", hostname="one", layers=[base, layer(EPOCH + 1)])
    assert files[f"{hashlib.sha256(base).hexdigest()}.tar"] == base


def test_a_layer_that_the_engine_compresses_is_the_same_layer(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", hostname="one", layers=[layer(7)])
    assert one == saved(tmp_path / "two", hostname="one", layers=[gzip.compress(layer(7))])
