"""Makes the kept state file of the version that this checkout writes: `python -m tests.state.files.make`.

It writes `state-N.db.gz` beside this file, and `state-N-killed.tar.gz`: the file and its log as a kill leaves them.  Run it
once for each version of the schema, with the last commit that writes that version, and keep the files for ever: the tests
upgrade each kept file and compare its counts.
"""

from __future__ import annotations

import gzip
import io
import sqlite3
import tarfile
import tempfile
from pathlib import Path

from exporter.config.config import KeyPair, Secret, WorkspaceConfig
from exporter.counting.contribution import OVERFLOW, group_account, room_account
from exporter.counting.ledger import Ledger
from exporter.counting.poll import Poll
from exporter.counting.rooms import KnownRoom
from exporter.counting.scope import Scope
from exporter.counting.sums import Series
from exporter.counting.webhooks import WORKSPACE
from exporter.hms.records import Room, decode_session
from exporter.state.store import Store
from exporter.state.sums import Additions
from exporter.times import HOUR
from tests.harness import Counting, at, peer, session

FOLDER = Path(__file__).parent
DAY_S = 86_400


def fill(path: Path) -> Counting:
    """Makes two workspaces with every kind of entry.  The store of the first one stays open."""
    counting = Counting(path, ["*", "configured", "gone"])
    counting.ledger.notes_ends_after = at(3 * DAY_S - 3_600)
    # Sessions that have ended by the first poll, and a running one whose peer changes its role before the end.
    started = at(-100)
    old = [session(f"old-{n}", {"p": peer(at(-900), at(-60 + n))}, started=at(-900), ended=at(-50 + n)) for n in range(3)]
    counting.poll(at(0), *old, session("first", {"f": peer(started, role="viewer")}, started=started))
    counting.poll(at(30), session("first", {"f": peer(started, role="stage")}, started=started))
    counting.poll(at(60), session("first", {"f": peer(started, at(40), role="stage")}, started=started, ended=at(50)))
    # Settled sessions over three days, in two rooms and three roles, one across midnight, one with a ghost.
    ended = [
        session(
            f"ended-{n}",
            {
                "a": peer(at(n * 30_000 + 10), at(n * 30_000 + 9_000.000001), "host", "user-of-nobody"),
                "b": peer(at(n * 30_000 + 20), at(n * 30_000 + 500 + n), "guest"),
                "ghost": peer(at(n * 30_000 + 30), None, "viewer"),
            },
            room=("room", "configured")[n % 2],
            started=at(n * 30_000),
            ended=at(n * 30_000 + 9_500),
        )
        for n in range(8)
    ]
    # A session of an hour ago, because ids of sessions settled long ago are not remembered.
    hour_ago = 3 * DAY_S - 3_600
    ended.append(session("recent", {"r": peer(at(hour_ago), at(hour_ago + 60))}, started=at(hour_ago), ended=at(hour_ago + 60)))
    for seconds in (0, 30):
        counting.poll(at(3 * DAY_S + seconds), *ended)
    # A running session whose peer changes its role, one that vanishes, and one that is held above the truth.
    counting.poll(
        at(3 * DAY_S + 60),
        session("running", {"p": peer(at(3 * DAY_S), role="viewer"), "q": peer(at(3 * DAY_S + 1), role="host")}, started=at(3 * DAY_S)),
        session("lost", {"l": peer(at(3 * DAY_S + 2))}, started=at(3 * DAY_S)),
        session("held", {"h": peer(at(3 * DAY_S + 3))}, room="configured", started=at(3 * DAY_S)),
    )
    counting.poll(
        at(3 * DAY_S + 90),
        session(
            "running",
            {"p": peer(at(3 * DAY_S), role="stage"), "q": peer(at(3 * DAY_S + 1), at(3 * DAY_S + 70), "host")},
            started=at(3 * DAY_S),
        ),
        session(
            "held", {"h": peer(at(3 * DAY_S + 3), at(3 * DAY_S + 30))}, room="configured", started=at(3 * DAY_S), ended=at(3 * DAY_S + 31)
        ),
        unknown=["lost"],
    )
    # An entry that was taken out, and an added one whose past is still unread.
    counting.configure(["*", "configured", "new"], at(DAY_S))
    counting.begin(at(3 * DAY_S + 120))
    counting.see(session("waiting", {"w": peer(at(3 * DAY_S + 100))}, room="nameless", started=at(3 * DAY_S + 100)))
    counting.now.finish((), 0.0)
    rooms = [
        KnownRoom.of(Room("room", "daily-standup", "default", "t1", "eu", enabled=True), at(5)),
        KnownRoom.of(Room("configured", 'a "name"', "default", "t1", "in", enabled=False), at(6)),
        KnownRoom.missing("gone", at(7)),
    ]
    counting.store.commit("w", counting.ledger, rooms)
    second_workspace(counting.store)
    added_up(counting.store)
    return counting


def added_up(store: Store) -> None:
    """The sums beside sessions: of the workspace, a room and a group."""
    additions = Additions(store, "w")
    additions.begin()
    additions.open([room_account("room"), group_account("class-a")])
    additions.sums.add(WORKSPACE, Series("deliveries", ("failed",)), 3, at(60))
    additions.sums.add(room_account("room"), Series("errors", ("join", "4006")), 2, at(70))
    additions.sums.add(group_account("class-a"), Series("errors", ("publish", "3001")), 1, at(80))
    additions.commit({"webhook_deliveries.read_until": at(120)})


def second_workspace(store: Store) -> None:
    """A workspace of groups: one with a settled and a running session, and that of the rooms without series of their own."""
    ledger, rooms = Ledger(), Scope(WorkspaceConfig("second", KeyPair(Secret("k"), Secret("s"))))
    now = Poll(ledger, at(100), HOUR)
    ledger.coverage.configure(rooms, at(0), at(100), str)
    for number, (account, end) in enumerate([(group_account("class-a"), at(90)), (group_account("class-a"), None), (OVERFLOW, at(80))]):
        raw = session(f"group-{number}", {"p": peer(at(5), end, "guest")}, room=f"class-{number}", started=at(4), ended=end)
        found, _ = decode_session(raw, at(100))
        assert found is not None
        now.see(found, found.room_id, None)
        now.assign(found.room_id, found.room_id, account)
    ledger.coverage.complete(at(100))
    now.finish(None, 0.0)
    store.commit("second", ledger)


def packed(files: dict[str, bytes]) -> bytes:
    """A tar archive that is the same for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, body in files.items():
            found = tarfile.TarInfo(name)
            found.size = len(body)
            archive.addfile(found, io.BytesIO(body))
    return gzip.compress(out.getvalue(), 9, mtime=0)


def main() -> None:
    """Writes both files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        counting = fill(path)
        killed = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
        counting.close()
        database = sqlite3.connect(path)
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.close()
        (FOLDER / f"state-{version}.db.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    (FOLDER / f"state-{version}-killed.tar.gz").write_bytes(packed({f"state.db{name}": body for name, body in killed.items()}))


if __name__ == "__main__":
    main()
