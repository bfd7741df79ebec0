"""The memory of the real process: with ten rooms, and with 100,000 peers over 500 polls."""

from __future__ import annotations

import itertools
import socketserver
import tempfile
import threading
import time
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from bench.exporters import Exporter, total
from bench.report import Row
from bench.rig import OPENMETRICS
from bench.servers import Scraper, Served, start_server
from bench.start import warm_state
from bench.traffic import PAGE, SECRET, Traffic
from exporter.simulator import SimulatedApi, World, real_clock
from exporter.times import MINUTE

_GOAL = 2_000


def run(*, quick: bool) -> list[Row]:
    """Resident memory, now and at its peak."""
    rows = [_few(rooms) for rooms in (1, 10, 100)]
    polls = 10 if quick else 500
    large = [
        _many(sessions, polls if sessions == _GOAL else min(polls, 30)) for sessions in ((20, 50, 100) if quick else (200, 600, _GOAL))
    ]
    rows += [row for kind in zip(*large, strict=True) for row in kind]
    return rows + [_in_turns(rooms) for rooms in ((100, 200, 500) if quick else (2_000, 7_000, 20_000))]


def _few(rooms: int) -> Row:
    """A small workspace after ten polls and as many scrapes."""
    world, now = World("key", SECRET), real_clock()
    for number in range(rooms):
        session = world.open(world.room(name=f"room-{number}").id, now - 10 * MINUTE)
        for place in range(5):
            session.join("host" if not place else "guest", now - 10 * MINUTE)
    with (
        SimulatedApi([world]) as api,
        tempfile.TemporaryDirectory() as folder,
        Exporter(Path(folder), api.base_url, world.secret, 0.2, rooms=[room.id for room in world.rooms]) as exporter,
    ):
        exporter.wait_for("hms_exporter_polls_total", 10)
        most = exporter.memory()[1]
    return Row("memory, small", f"{rooms} rooms", "MiB", most, per=rooms).judged("60 MiB", met=most <= 60, at=rooms == 10)


def _many(sessions: int, polls: int) -> tuple[Row, Row]:
    """A busy workspace that is scraped all the time. A tenth of it changes between two polls."""
    interval = 0.2
    with (
        Served(page_server, sessions) as server,
        tempfile.TemporaryDirectory() as folder,
        Exporter(Path(folder), f"http://127.0.0.1:{server.port}", SECRET, interval, limits={"max_rooms": sessions}) as exporter,
    ):
        compressed = Scraper(exporter.port, OPENMETRICS, "gzip")
        early, series, done = 0.0, 0, 0.0
        while done < polls:
            time.sleep(0.1 if sessions < _GOAL else 1)  # as often as Prometheus would
            page, _ = exporter.scrape()
            compressed.scrape()  # as Prometheus does
            done = total(page, "hms_exporter_polls_total")
            series = max(series, page.count("\n") - page.count("\n#"))
            most = exporter.memory()[1]
            if not early and done >= polls / 10:
                early = most
    at_goal = sessions == _GOAL
    size = f"{sessions:,} sessions, {sessions * 50:,} peers, {series:,} series"
    # The peak so far, because the present value varies by a sixth within each poll. A leak would raise the peak.
    flat = Row("memory at most, after polls", f"{sessions:,} sessions, {polls} polls", "MiB", most, "after a tenth of them", early)
    return (
        Row("memory, large", size, "MiB", most, per=sessions).judged("200 MiB", met=most <= 200, at=at_goal),
        flat.judged("flat", met=most <= 1.05 * early, at=at_goal),
    )


def _in_turns(rooms: int) -> Row:
    """Rooms that were used recently, one after another. No session runs now."""
    with Served(page_server, 0) as server, tempfile.TemporaryDirectory() as folder:
        warm_state(Path(folder) / "state.db", rooms)
        base_url = f"http://127.0.0.1:{server.port}"
        with Exporter(Path(folder), base_url, SECRET, 0.5, limits={"max_rooms": rooms}) as exporter:
            page = exporter.wait_for("hms_exporter_polls_total", 10)
            series = page.count("\n") - page.count("\n#")
            return Row("memory, rooms used in turns", f"{rooms:,} rooms, {series:,} series", "MiB", exporter.memory()[1], per=rooms)


def page_server(sessions: int) -> int:
    """Serves a 100ms with running sessions only, a tenth of which change with each listing; returns the port.

    The simulator could do this too, but it compresses 28 MB for each poll, which would take most of the time.
    """
    traffic = Traffic(sessions)
    lock = threading.Lock()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while request := self.rfile.readline():
                while self.rfile.readline().strip():
                    pass
                body = self._answer(request.split()[1].decode())
                head = f"HTTP/1.1 200 OK\r\nDate: {formatdate(usegmt=True)}\r\nContent-Length: {len(body)}\r\n\r\n"
                self.wfile.write(head.encode() + body)

        def _answer(self, target: str) -> bytes:
            url = urlsplit(target)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            start = int(query["start"][4:], 16) + 1 if "start" in query else 0
            if url.path == "/rooms":
                shown = itertools.islice(traffic.rooms().items(), start, start + PAGE)
                items = [f'{{"id":"{room}","name":"{name}","template":"default","region":"eu"}}' for room, name in shown]
                last = f"6205{start + len(items) - 1:020x}"
                return f'{{"limit":{PAGE},"data":[{",".join(items)}],"last":"{last}"}}'.encode()
            if query.get("active") != "true" or start >= sessions:
                return b'{"limit":%d,"data":null}' % PAGE
            with lock:
                if not start:
                    traffic.change(0.1, real_clock())
                return traffic.page(start)

    return start_server(Handler)
