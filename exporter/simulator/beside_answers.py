"""100ms's answers about recordings, streams, assets, webhook deliveries and client events."""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from exporter.simulator.beside import Beside, EventQuery, JobQuery
from exporter.simulator.jobs import STATUSES, Asset, Job, Kind
from exporter.simulator.replies import Call, Pages, RefusedError, Response, flag, moment
from exporter.simulator.shape import Record
from exporter.times import DAY

_KINDS: Final[Mapping[str, Kind]] = {
    "/recordings": "recording",
    "/live-streams": "live_stream",
    "/external-streams": "external_stream",
}

ROUTES: Final = {
    **{route: re.compile(route) for route in _KINDS},
    **{f"{route}/<id>": re.compile(rf"{route}/([^/]+)") for route in _KINDS},
    "/recording-assets": re.compile("/recording-assets"),
    "/analytics/webhooks": re.compile("/analytics/webhooks"),
    "/analytics/events": re.compile("/analytics/events"),
}
"""The routes that are answered here, and the paths of each."""

_DELIVERIES_REACH_BACK: Final = 30 * DAY
_DELIVERIES_AT_ONCE: Final = 14 * DAY
_EVENTS_REACH_BACK: Final = 30 * DAY
_CURSOR_LIVES: Final = DAY
_LARGEST_PAGE: Final = 100


def answer(call: Call, route: str, beside: Beside, pages: Pages) -> Response:
    """The answer to a call of one of `ROUTES`.  Raises `RefusedError`."""
    query = call.query
    match route:
        case "/recording-assets":
            return _assets(query, beside, pages)
        case "/analytics/webhooks":
            return _deliveries(call, beside, pages)
        case "/analytics/events":
            return _client_events(call, beside, pages)
    listing, one, _ = route.partition("/<id>")
    kind = _KINDS[listing]
    if not one:
        return _jobs(kind, query, beside, pages)
    job = beside.find_job(kind, call.path.rpartition("/")[2], pages.now)
    if job is None:
        raise RefusedError(404, f"{kind.replace('_', ' ')} not found")
    return Response(200, job.encoded(pages.now))


def _jobs(kind: Kind, query: Mapping[str, str], beside: Beside, pages: Pages) -> Response:
    status = _one_of(query, "status", STATUSES)

    def select(limit: int, start: str | None) -> Sequence[Job]:
        return beside.list_jobs(JobQuery(limit, kind, query.get("room_id"), query.get("session_id"), status, start), pages.now)

    return pages.page(query, select, lambda job_id: beside.find_job(kind, job_id, pages.now))


def _assets(query: Mapping[str, str], beside: Beside, pages: Pages) -> Response:
    status = _one_of(query, "status", ("completed", "failed"))

    def select(limit: int, start: str | None) -> Sequence[Asset]:
        return beside.list_assets(JobQuery(limit, None, query.get("room_id"), query.get("session_id"), status, start), pages.now)

    def find(asset_id: str) -> Asset | None:
        return next((asset for asset in select(sys.maxsize, None) if asset.id == asset_id), None)

    return pages.page(query, select, find)


def _deliveries(call: Call, beside: Beside, pages: Pages) -> Response:
    """Pages by number: `repeated_cursor` shows the previous page again, `endless_pages` says that there is another."""
    query, now = call.query, pages.now
    limit, page = _number(query, "limit", 50, _LARGEST_PAGE), _number(query, "page", 1, sys.maxsize)
    status = _one_of(query, "status", ("all", "failed", "success"))
    after, before = moment(query, "start_time"), moment(query, "end_time")
    after = now - DAY if after is None else after
    before = min(now, after + _DELIVERIES_AT_ONCE) if before is None else before
    if after < now - _DELIVERIES_REACH_BACK:
        raise RefusedError(400, "invalid start_time", "start_time must be within the last 30 days")
    if not after <= before <= after + _DELIVERIES_AT_ONCE:
        raise RefusedError(400, "invalid end_time", "end_time must be within 14 days after start_time")
    found = [
        delivery
        for delivery in beside.deliveries(EventQuery(after, min(before, now), query.get("room_id"), None, call.every("event_names")))
        if status in (None, "all") or (delivery.error is not None) == (status == "failed")
    ]
    shown_page = page - 1 if pages.twist == "repeated_cursor" and page > 1 else page
    first = (shown_page - 1) * limit - (1 if pages.twist == "repeated_item" and page > 1 else 0)
    total_pages = -(-len(found) // limit)
    events = [delivery.record() for delivery in found[first : first + limit]]
    pagination = {
        "current_page": page,
        "page_size": limit,
        "total_pages": total_pages,
        "total_items": len(found),
        "has_next": page < total_pages or pages.twist == "endless_pages",
        "has_prev": page > 1,
    }
    record: Record = {"events": _list(events, pages), "pagination": pagination, "summary": {"total_events": len(found)}}
    return Response(200, msgspec.json.encode(record))


def _client_events(call: Call, beside: Beside, pages: Pages) -> Response:
    query, now = call.query, pages.now
    room_id = query.get("room_id")
    if not room_id:
        raise RefusedError(400, "invalid room_id", "room_id is required")
    limit = _number(query, "limit", 10, _LARGEST_PAGE)
    errors = flag(query, "error")
    start = query.get("start") or None
    wanted = EventQuery(now - _EVENTS_REACH_BACK, now, room_id, query.get("session_id"), call.every("type"))
    found = [
        event
        for event in beside.client_events(wanted)
        if (errors is None or event.failed == errors)
        and query.get("peer_id") in (None, event.peer_id)
        and query.get("user_id") in (None, event.user_id)
    ]
    first = 0
    if start is not None and pages.twist != "endless_pages":
        last_seen = _opened(start, now)
        first = next((index + 1 for index, event in enumerate(found) if event.id == last_seen), len(found))
    if pages.twist == "repeated_item" and first:
        first -= 1
    shown = found[first : first + limit]
    record: Record = {"limit": limit, "total": len(found), "events": _list([event.record() for event in shown], pages)}
    if pages.twist == "repeated_cursor" and start is not None:
        record["next"] = start
    elif shown and (first + limit < len(found) or pages.twist == "endless_pages"):
        record["next"] = _cursor(shown[-1].id, now)
    elif pages.manners.final_last != "absent":
        record["next"] = ""
    return Response(200, msgspec.json.encode(record))


def _cursor(event_id: str, now: int) -> str:
    """A cursor, which is not just an id: it also says when it was issued."""
    return base64.urlsafe_b64encode(f"{now}/{event_id}".encode()).decode()


def _opened(cursor: str, now: int) -> str:
    try:
        given_at, _, event_id = base64.urlsafe_b64decode(cursor).decode().partition("/")
        age = now - int(given_at)
    except (binascii.Error, ValueError) as fault:
        raise RefusedError(400, "invalid start", "start must be the `next` of an answer") from fault
    if age > _CURSOR_LIVES:
        raise RefusedError(400, "invalid start", "the cursor has expired")
    return event_id


def _list(items: list[Record], pages: Pages) -> list[Record] | None:
    return items if items or pages.manners.empty_data == "list" else None


def _number(query: Mapping[str, str], name: str, default: int, largest: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,9}", text) or not 1 <= int(text) <= largest:
        raise RefusedError(400, f"invalid {name}", f"{name} must be a number from 1 to {largest}")
    return int(text)


def _one_of(query: Mapping[str, str], name: str, allowed: Sequence[str]) -> str | None:
    text = query.get(name)
    if text is not None and text not in allowed:
        raise RefusedError(400, f"invalid {name}", f"{name} must be one of {', '.join(allowed)}")
    return text
