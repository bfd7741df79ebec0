"""docs/scaling.md: a real Prometheus runs its examples."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from exporter.simulator import Company, SimulatedApi
from scripts import stack
from soak.process import free_port
from tests.docs.pages import blocks, page, section
from tests.e2e.program import configure, running, wait_until, workspace
from tests.e2e.prometheus import Prometheus, scraping_both
from tests.programs import require

PAGE = page("docs/scaling.md")


@pytest.mark.slow
def test_the_agent_of_the_page_sends_what_it_scrapes_to_a_prometheus_elsewhere(tmp_path: Path) -> None:
    (example,) = [block for block in blocks(PAGE, "yaml") if "remote_write" in block]
    settings = yaml.safe_load(example)
    receiver = f"127.0.0.1:{free_port()}"
    (remote,) = settings["remote_write"]
    remote["url"] = remote["url"].replace("https://prometheus.example", f"http://{receiver}")
    (target,) = settings["scrape_configs"][0]["static_configs"]
    assert target["targets"] == ["127.0.0.1:10100"], "the exporter's own port"
    settings["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    company = Company(1, time.time_ns() // 1000)
    prometheus = require("prometheus")
    for name in ("exporter", "receiver", "agent"):
        (tmp_path / name).mkdir()
    with SimulatedApi([company]) as api, stack.Processes(tmp_path) as processes:
        configure(tmp_path / "exporter", api, workspace(access_key=company.access_key, secret=company.secret))
        with running(tmp_path / "exporter", "--config.file=config.yaml") as exporter:
            target["targets"] = [exporter.address]
            receiving = stack.prometheus_command(prometheus, tmp_path / "receiver", receiver, {})
            processes.start("receiver", [*receiving, "--web.enable-remote-write-receiver"])
            processes.wait("receiver", f"http://{receiver}/-/ready")
            (tmp_path / "agent/agent.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
            flags = [f"--storage.agent.path={tmp_path}/agent/data", f"--web.listen-address=127.0.0.1:{free_port()}"]
            processes.start("agent", [prometheus, "--agent", f"--config.file={tmp_path}/agent/agent.yml", *flags])
            wait_until(lambda: Prometheus(receiver).ask("sum(hms_up)") == 1, 30, "nothing has arrived")
            assert Prometheus(receiver).ask('count(up{job="hms-exporter"})') == 1


def test_the_series_of_a_pair_are_scraped_in_the_tests_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/e2e/test_pair.py proves with this configuration that a take-over makes no new series."""
    (example,) = blocks(section(PAGE, "Prometheus"), "yaml")
    (shown,) = yaml.safe_load(example)["scrape_configs"]
    given = []

    class Refused(Exception):
        """Ends the command early: the test has what it needs."""

    def command(_: str, __: Path, ___: str, config: stack.Document) -> list[str]:
        given.append(config)
        raise Refused

    monkeypatch.setattr(stack, "prometheus_command", command)
    (target,) = shown["static_configs"]
    with pytest.raises(Refused), scraping_both(tmp_path / "folder", target["targets"], "1s"):
        pass
    (config,) = given
    assert config["scrape_configs"] == [shown]
