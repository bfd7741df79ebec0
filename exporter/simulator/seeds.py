"""Made-up secrets and personal details in the simulator's records: a test that finds `MARK` in any output has found a leak."""

from __future__ import annotations

from typing import Final

MARK: Final = "seeded-secret"
"""Part of every value below."""

MEETING_URL: Final = f"https://made-up.app.example/meeting/abc-defg-hij?auth_token={MARK}-meeting-token"
RTMP_URL: Final = f"rtmp://live.example/app/{MARK}-stream-key"
PLAYBACK_URL: Final = f"https://hls.example/{MARK}-playback/master.m3u8"
WEBHOOK_URL: Final = f"https://hooks.example/100ms?key={MARK}-webhook-url"
WEBHOOK_HEADERS: Final = {"x-hooks-token": f"{MARK}-webhook-header"}
ASSET_PATH: Final = f"{MARK}-bucket/recordings"
USER_NAME: Final = f"{MARK} Person"
USER_ID: Final = f"{MARK}-user-id"
USER_DATA: Final = f'{{"plan":"{MARK}-user-data"}}'
ERROR_DESCRIPTION: Final = f"ICE failed for 203.0.113.7 ({MARK}-description)"
ERROR_MESSAGE: Final = f"could not connect ({MARK}-message)"
DEVICE: Final = f"{MARK} Webcam"
