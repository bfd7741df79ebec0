"""A program of its own: reads large sessions from the given address, and prints records, parts and its peak memory (KiB)."""

from __future__ import annotations

import sys
from pathlib import Path

from exporter.config.config import ApiConfig, ManagementToken, Secret
from exporter.hms.client import Api
from exporter.hms.observer import Unobserved
from exporter.hms.pace import Patience
from exporter.hms.records import decode_session

api = Api(ApiConfig(base_url=sys.argv[1]), ManagementToken(Secret("token")), Unobserved())
client = api.client()
records = parts = peers = 0
for page in client.pages("/sessions", {"active": "true"}, Patience.from_now()):
    parts += 1
    for raw in page.data or ():
        session, _ = decode_session(raw, api.now())
        assert session is not None
        records, peers = records + 1, peers + len(session.stays)
        if parts == 1 and records == 1:
            client.record("/sessions", "one", Patience.from_now())  # another request while the page still arrives
status = Path("/proc/self/status").read_text().splitlines()
print(records, parts, peers, next(line.split()[1] for line in status if line.startswith("VmHWM")))
api.stop()
