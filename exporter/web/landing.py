"""The landing page: one self-contained document, rendered from values; everything that comes from outside is escaped."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from urllib.parse import quote

from exporter.publish.status import CollectorStatus, RoomStatus, Status, WorkspaceStatus
from exporter.times import SECOND, rfc3339

STATES = {"ok": "Up to date", "failing": "Failing", "waiting": "First poll under way"}
COLLECTOR_STATES = {"ok": "up to date", "failing": "failing", "silent": "left alone", "waiting": "waiting"}
UNKNOWN = "\N{EN DASH}"

STYLE = files("exporter.web").joinpath("landing.css").read_text("utf-8")

# Voice levels that look like a chart.
LOGO = (
    '<svg viewBox="0 0 44 44" aria-hidden="true"><rect width="44" height="44" rx="12" fill="currentColor"/>'
    '<path d="M12 18v8M18.7 12v20M25.3 15.5v13M32 19v6" stroke="#fff" stroke-width="3.6" stroke-linecap="round"/></svg>'
)


def content_security_policy() -> str:
    """The policy that lets the page use its own style sheet and nothing else; no other page may frame it."""
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def render(status: Status, now: float, telemetry_path: str = "/metrics") -> str:
    """The page as HTML.  `now` is in seconds since the epoch, as are the status's times."""
    cards = "".join(_card(workspace, now) for workspace in status.workspaces)
    revision = f" ({escape(status.revision[:12])})" if status.revision else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{max(5, round(status.poll_interval))}">
<title>{_title(status)}</title>
<style>{STYLE}</style>
</head>
<body>
<div class="bar"><header class="wide">
<div class="brand">{LOGO}<div><h1>100ms exporter</h1><p>Calls on 100ms.live, for Prometheus</p></div></div>
<nav aria-label="Pages"><ul>
<li><a href="{quote(telemetry_path)}">Metrics</a></li>
<li><a href="/-/healthy">Health</a></li>
<li><a href="/-/ready">Readiness</a></li>
</ul></nav>
</header></div>
<main class="wide">{cards}
<p class="words">A <b>peer</b> is one connection to a room. A <b>user</b> is one user id: a person on two devices is two peers \
and one user, if both join with the same id. A <b>session</b> is one call. The exporter\N{RIGHT SINGLE QUOTATION MARK}s \
README and its docs folder describe every metric.</p>
</main>
<footer class="wide">Version {escape(status.version)}{revision}, started {_moment(status.started_at, now)}. \
It polls every {_span(status.poll_interval)}; this page reloads itself.</footer>
</body>
</html>
"""


def _title(status: Status) -> str:
    failing = sum(workspace.state == "failing" for workspace in status.workspaces)
    return f"({failing} failing) 100ms exporter" if failing else "100ms exporter"


def _card(workspace: WorkspaceStatus, now: float) -> str:
    facts = [("Last poll", _moment(workspace.polled_at, now))]
    if workspace.succeeded_at != workspace.polled_at:
        facts.append(("Last success", _moment(workspace.succeeded_at, now)))
    if workspace.calls_per_hour is not None:
        facts.append(("API calls an hour", f"{workspace.calls_per_hour:,.0f}"))
    return f"""
<section class="{workspace.state}">
<div class="top"><h2>{escape(workspace.name)}</h2><span class="state">{STATES[workspace.state]}</span></div>
{f'<p class="reason">{escape(workspace.reason)}</p>' if workspace.reason else ""}
{_figures(workspace)}
{_rooms(workspace.busiest, now)}
{_past(workspace.catching_up)}
{_collectors(workspace.collectors, now)}
<dl class="facts">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)}</dl>
</section>"""


def _figures(workspace: WorkspaceStatus) -> str:
    figures = {"peers": workspace.peers, "users": workspace.users, "sessions": workspace.sessions, "rooms": workspace.rooms}
    if all(value is None for value in figures.values()):
        return '<p class="none">No figures at the moment.</p>'
    return f'<dl class="figures">{"".join(_figure(name, value) for name, value in figures.items())}</dl>'


def _figure(name: str, value: int | None) -> str:
    if value is None:
        return f'<div><dt>{name}</dt><dd class="unknown"><span aria-label="unknown">{UNKNOWN}</span></dd></div>'
    return f"<div><dt>{name.removesuffix('s') if value == 1 else name}</dt><dd>{value:,}</dd></div>"


def _rooms(rooms: tuple[RoomStatus, ...], now: float) -> str:
    if not rooms:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(room.name)}</th><td>{room.peers:,}</td><td class="extra">{room.users:,}</td>'
        f'<td class="extra">{room.sessions:,}</td><td>{_span(max(0.0, now - room.started_at))}</td>'
        f'<td class="extra">{room.minutes_today:,.0f}</td></tr>'
        for room in rooms
    )
    return (
        '<div class="scroll"><table><caption>Busiest rooms now</caption><thead><tr><th scope="col">Room</th><th scope="col">Peers</th>'
        '<th scope="col" class="extra">Users</th><th scope="col" class="extra">Sessions</th><th scope="col">Running for</th>'
        f'<th scope="col" class="extra">Minutes today</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _past(progress: float | None) -> str:
    if progress is None:
        return ""
    share = min(1.0, max(0.0, progress))
    return f'<p class="past"><label>Past sessions read: {share:.0%}<progress value="{share:.3f}"></progress></label></p>'


def _collectors(collectors: tuple[CollectorStatus, ...], now: float) -> str:
    """The collectors, one line each."""
    if not collectors:
        return ""
    return f'<dl class="facts">{"".join(_collector(collector, now) for collector in collectors)}</dl>'


def _collector(collector: CollectorStatus, now: float) -> str:
    reason = f": {escape(collector.reason)}" if collector.reason else ""
    state = f"{COLLECTOR_STATES[collector.state]}, read {_moment(collector.read_at, now)}{reason}"
    return f"<div><dt>{escape(collector.name.replace('_', ' '))}</dt><dd>{state}</dd></div>"


def _moment(at: float | None, now: float) -> str:
    if at is None:
        return "never"
    ago = "just now" if now - at < 1 else f"{_span(now - at)} ago"
    return f'<time datetime="{rfc3339(round(at * SECOND), 0)}">{ago}</time>'


def _span(seconds: float) -> str:
    """A length of time in its two largest units."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    sizes = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    first = next((index for index, (count, _) in enumerate(sizes) if count), len(sizes) - 1)
    return " ".join(f"{count} {unit}" for count, unit in sizes[first : first + 2] if count) or "0 s"
