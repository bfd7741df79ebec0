"""Describes what a configuration means and costs, and whether 100ms accepts it, for `hms-exporter check`."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.config.config import Config, RoomById, RoomsByName, WorkspaceConfig, format_duration
from exporter.counting.scope import Scope
from exporter.hms.client import Api, Client
from exporter.hms.errors import ApiError, NotFound
from exporter.hms.observer import Unobserved
from exporter.hms.pace import Patience
from exporter.polling.client_errors import ClientErrors
from exporter.polling.deliveries import Deliveries
from exporter.polling.planner import estimate
from exporter.polling.turns import RARELY
from exporter.publish.beside import LISTED

_EXAMPLES = ((0, 0), (40, 4), (1000, 10))
"""The cases for which the cost is shown: running sessions, and how many of them end between two polls."""
_NOTABLE_SKEW = 60
"""Seconds by which this machine's clock may differ from the API's before it is mentioned."""


def describe(config: Config) -> str:
    """The configuration in plain words."""
    return "\n".join(_describe(config)) + "\n"


def _describe(config: Config) -> Iterator[str]:
    interval = config.poll.interval
    yield "The configuration is good."
    yield f"Every {format_duration(interval)} each workspace is polled; the state is kept in {config.storage.path}."
    for workspace in config.workspaces:
        yield ""
        yield f"Workspace {workspace.name}: {_rooms(workspace)}"
        scope = Scope(workspace)
        rooms = len(scope.ids) if scope.only_ids else None
        yield "  running sessions   of them end between polls   calls a poll, at most   calls an hour"
        for running, ended in _EXAMPLES:
            calls = estimate(rooms, running, ended, config.api.page_size)
            yield f"  {running:>16,}   {ended:>25,}   {calls:>21,}   {round(calls * 3600 / interval):>13,}"
    if config.bots.roles:
        yield ""
        yield f"Peers in these roles are not people: {', '.join(sorted(config.bots.roles))}."
    yield from _without_effect(config)
    yield from _beside(config)


def _without_effect(config: Config) -> Iterator[str]:
    """Budgets and prices of meters that are not collected, or of roles that are not people's."""
    bots, prices = config.bots.roles, config.prices
    kinds = [listed.kind for listed in LISTED if not getattr(config.collect, listed.kind.name)]
    unread = {kind.meter: f"collect.{kind.name} is false" for kind in kinds if kind.meter is not None}
    for budget in config.budgets:
        if budget.meter in unread:
            yield f"Without effect: the budget {budget.name}, because {unread[budget.meter]}."
        elif budget.roles is not None and budget.roles <= bots:
            yield f"Without effect: the budget {budget.name}, because bots.roles holds all of its roles."
    if prices is None:
        return
    for meter, why in unread.items():
        if meter != "peer" and prices.per_minute(meter):
            yield f"Without effect: prices.per_{meter}_minute, because {why}."
    for role in sorted(prices.per_peer_minute.keys() & bots):
        yield f"Without effect: prices.per_peer_minute.{role}, because bots.roles holds this role."


def _beside(config: Config) -> Iterator[str]:
    """The cost of each collector, including those that are turned off."""
    interval = max(config.collect.interval, config.poll.interval)
    busy, idle = round(3600 / interval), round(3600 / (interval * RARELY))
    every = format_duration(interval)
    costs = {
        listed.kind.name: f"one call every {every}, {busy:,} an hour; {idle:,} an hour when there was nothing for an hour"
        for listed in LISTED
    }
    costs[Deliveries.name] = f"two calls every {every}, {2 * busy:,} an hour; {2 * idle:,} an hour when there was nothing for an hour"
    costs[ClientErrors.name] = "one call for each session that has ended, one more for each hundred errors of it"
    wanted = {name: cost for name, cost in costs.items() if getattr(config.collect, name)}
    yield ""
    yield "Besides sessions, each workspace is asked for:" if wanted else "Nothing is read besides sessions."
    for name, cost in wanted.items():
        yield f"  {name}: {cost}"
    if wanted != costs:
        yield "Turned off, and what it would cost:"
    for name, cost in costs.items():
        if name not in wanted:
            yield f"  {name}: {cost}"


def _rooms(workspace: WorkspaceConfig) -> str:
    if workspace.rooms is None:
        return "every room"
    ids = sum(isinstance(room, RoomById) for room in workspace.rooms)
    patterns = [room for room in workspace.rooms if isinstance(room, RoomsByName)]
    parts = [f"{ids:,} room{'s' if ids != 1 else ''} by id"] if ids else []
    parts += [f"rooms named {pattern.match.pattern}" + (f", together as {pattern.group}" if pattern.group else "") for pattern in patterns]
    return "; ".join(parts)


def try_live(config: Config) -> tuple[str, bool]:
    """Asks 100ms for each workspace's running sessions and configured rooms; returns the findings, and whether all is well."""
    lines, good = [""], True
    for workspace in config.workspaces:
        api = Api(config.api, workspace.credentials, Unobserved())
        client = api.client()
        try:
            found, fine = _try(api, client, workspace)
        finally:
            client.close()
            api.stop()
        lines.append(f"Workspace {workspace.name}: " + "\n  ".join(found))
        good = good and fine
    return "\n".join(lines) + "\n", good


def _try(api: Api, client: Client, workspace: WorkspaceConfig) -> tuple[list[str], bool]:
    try:
        running = sum(len(page.data or ()) for page in client.pages("/sessions", {"active": "true"}, Patience.from_now()))
    except ApiError as error:
        return [str(error)], False
    found = [f"the credentials are accepted; {running:,} sessions run now."]
    skew = api.skew()
    if abs(skew) > _NOTABLE_SKEW:
        where = "behind" if skew > 0 else "ahead of"
        found.append(f"This machine's clock is {abs(skew):.0f} s {where} the API's; counting is not affected.")
    faults = list(_faults_of_rooms(client, workspace))
    return found + faults, not faults


def _faults_of_rooms(client: Client, workspace: WorkspaceConfig) -> Iterator[str]:
    for room in workspace.rooms or ():
        if not isinstance(room, RoomById):
            continue
        try:
            client.record("/rooms", room.id, Patience.from_now())
        except NotFound:
            yield f"room {room.id}: 100ms does not know it"
        except ApiError as error:
            yield f"room {room.id}: {error}"
