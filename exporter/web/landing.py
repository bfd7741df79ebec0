"""The landing page: one self-contained document, rendered from values; everything that comes from outside is escaped."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from exporter.publish.status import RoomStatus, Status, WorkspaceStatus
from exporter.times import SECOND, rfc3339

STATES = {"ok": "Up to date", "failing": "Failing", "waiting": "First poll under way"}
UNKNOWN = "\N{EN DASH}"

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f3f5f8; --card: #fff; --text: #14181f; --soft: #59626f; --line: #e0e4ea; --link: #1c4fd6; --brand: #2f6bff;
  --ok: #0a6638; --ok-back: #dcf5e6; --failing: #a01a1a; --failing-back: #fde8e6; --waiting: #7a4d00; --waiting-back: #fdf0d2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0d1016; --card: #161a22; --text: #e9ecf1; --soft: #9fa8b6; --line: #29303b; --link: #8fb5ff; --brand: #5b8cff;
    --ok: #7fe0a8; --ok-back: #11341f; --failing: #ffb3ab; --failing-back: #441a19; --waiting: #f6cf7e; --waiting-back: #3b2c0c;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
.bar { background: var(--card); border-bottom: 1px solid var(--line) }
.wide { max-width: 66rem; margin: 0 auto; padding: 0 1.5rem }
header { display: flex; flex-wrap: wrap; gap: .9rem 2rem; align-items: center; justify-content: space-between; min-height: 5.5rem }
.brand { display: flex; gap: .9rem; align-items: center }
.brand svg { flex: none; width: 2.75rem; height: 2.75rem; color: var(--brand) }
h1 { margin: 0; font-size: 1.3rem; line-height: 1.25; letter-spacing: -.015em }
.brand p { margin: .1rem 0 0; color: var(--soft); font-size: .9rem }
a { color: var(--link) }
a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
nav ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem }
nav a {
  display: block; padding: .45rem 1rem; border: 1px solid var(--line); border-radius: 99px;
  color: var(--text); font-weight: 550; font-size: .94rem; text-decoration: none;
}
nav a:hover { border-color: currentColor }
nav li:first-child a { background: var(--link); border-color: var(--link); color: var(--card) }
section {
  position: relative; overflow: hidden; margin: 1.5rem 0; padding: 1.5rem 1.75rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 1rem; box-shadow: 0 1px 3px #0000000d;
}
section.failing::before { content: ""; position: absolute; inset: 0 auto 0 0; width: .3rem; background: var(--failing) }
.top { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: center; justify-content: space-between }
h2 { margin: 0; min-width: 0; font-size: 1.2rem; letter-spacing: -.01em; overflow-wrap: anywhere }
.state { display: flex; gap: .5rem; align-items: center; padding: .15rem .8rem; border-radius: 99px; font-size: .875rem; font-weight: 600 }
.state::before { content: ""; width: .5rem; height: .5rem; border-radius: 50%; background: currentColor }
.ok .state { color: var(--ok); background: var(--ok-back) }
.failing .state { color: var(--failing); background: var(--failing-back) }
.waiting .state { color: var(--waiting); background: var(--waiting-back) }
.reason {
  margin: 1rem 0 0; padding: .65rem 1rem; border-radius: .6rem; color: var(--failing); background: var(--failing-back);
  overflow-wrap: anywhere;
}
dl { margin: 0 }
dt { color: var(--soft); font-size: .875rem }
dd { margin: 0; font-variant-numeric: tabular-nums }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.4rem 0 1.3rem }
.figures div { flex: 1 1 9rem; display: flex; flex-direction: column-reverse; justify-content: flex-end }
.figures dd { font-size: clamp(2rem, 4.6vw, 3.1rem); line-height: 1.1; font-weight: 680; letter-spacing: -.035em }
.figures dd.unknown { color: var(--soft); font-weight: 400 }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 2rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .94rem }
.facts div { display: flex; gap: .5rem; align-items: baseline }
.facts dt { font-size: inherit }
.facts dd { font-weight: 550 }
.none { margin: 1rem 0; color: var(--soft) }
.scroll { overflow-x: auto; margin-bottom: 1.2rem }
table { width: 100%; border-collapse: collapse; font-size: .94rem; font-variant-numeric: tabular-nums }
caption { padding-bottom: .4rem; text-align: left; color: var(--soft); font-size: .875rem }
th, td { padding: .45rem 0 .45rem 1rem; border-top: 1px solid var(--line); text-align: right; white-space: nowrap }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: .875rem }
th:first-child { padding-left: 0; text-align: left; font-weight: 550; white-space: normal; overflow-wrap: anywhere }
.past { margin: 0 0 1.3rem; color: var(--soft); font-size: .9rem }
progress {
  appearance: none; display: block; width: 100%; height: .5rem; margin-top: .45rem; border: 0; border-radius: 99px; overflow: hidden;
  background: var(--line); accent-color: var(--brand);
}
progress::-webkit-progress-bar { background: var(--line) }
progress::-webkit-progress-value { background: var(--brand); border-radius: 99px }
progress::-moz-progress-bar { background: var(--brand) }
footer { padding-bottom: 2.5rem; color: var(--soft); font-size: .875rem; overflow-wrap: anywhere }
@media (max-width: 40rem) {
  .wide { padding: 0 1rem }
  header.wide { padding-top: 1.1rem; padding-bottom: 1.1rem }
  section { margin: 1rem 0; padding: 1.2rem 1.25rem }
  .figures div { flex-basis: 40% }
  .figures dd { font-size: 2.3rem }
  .facts { display: block }
  .extra { display: none }
  .facts div { justify-content: space-between; padding: .15rem 0 }
}
"""

# Three people's levels rising and falling: a call, and a chart.
LOGO = (
    '<svg viewBox="0 0 44 44" aria-hidden="true"><rect width="44" height="44" rx="12" fill="currentColor"/>'
    '<path d="M12 18v8M18.7 12v20M25.3 15.5v13M32 19v6" stroke="#fff" stroke-width="3.6" stroke-linecap="round"/></svg>'
)


def content_security_policy() -> str:
    """The policy under which the page is whole: its own style sheet, and nothing else from anywhere; nobody may frame it."""
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def render(status: Status, now: float) -> str:
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
<li><a href="/metrics">Metrics</a></li>
<li><a href="/-/healthy">Health</a></li>
<li><a href="/-/ready">Readiness</a></li>
</ul></nav>
</header></div>
<main class="wide">{cards}
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


def _moment(at: float | None, now: float) -> str:
    if at is None:
        return "never"
    ago = "just now" if now - at < 1 else f"{_span(now - at)} ago"
    return f'<time datetime="{rfc3339(round(at * SECOND), 0)}">{ago}</time>'


def _span(seconds: float) -> str:
    """A length of time in its two largest units, as a person would say it."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    sizes = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    first = next((index for index, (count, _) in enumerate(sizes) if count), len(sizes) - 1)
    return " ".join(f"{count} {unit}" for count, unit in sizes[first : first + 2] if count) or "0 s"
