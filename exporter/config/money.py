"""What a user may say of money: budgets of participant minutes, and prices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from exporter.config import readers as values
from exporter.config.readers import Reader, Value

DEFAULT_ROLE = "default"
"""In `prices.per_peer_minute`: every role that has no price of its own."""

_peer_minutes = values.number(above=0, at_most=1e12)
_price = values.number(above=0, at_most=1e6)
_PERIODS: tuple[Literal["day"], Literal["month"]] = ("day", "month")
_period: Reader[Literal["day", "month"]] = values.choice(*_PERIODS)


@dataclass(frozen=True, slots=True)
class Budget:
    """So many peer-minutes a UTC day or month, of everything or of one workspace, some rooms (names or ids), some roles."""

    name: str
    period: Literal["day", "month"]
    peer_minutes: float
    workspace: str | None = None
    rooms: frozenset[str] | None = None
    roles: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """What a peer-minute costs, by role, beyond the minutes that are free each month in each workspace."""

    currency: str
    per_peer_minute: dict[str, float] = field(default_factory=dict)
    free_peer_minutes: float = 0.0

    def of(self, role: str) -> float:
        """The price of a peer-minute in this role; 0 when neither it nor `default` has one."""
        return self.per_peer_minute.get(role, self.per_peer_minute.get(DEFAULT_ROLE, 0.0))


def budgets(value: Value) -> tuple[Budget, ...]:
    """Reads the list of budgets.  Raises `ConfigError`."""
    if value.is_null:
        return ()
    found = tuple(_budget(item) for item in value.items("a list of budgets"))
    first: dict[str, int] = {}
    for index, budget in enumerate(found):
        if budget.name in first:
            place = value.items()[index].member("name")
            raise place.error(f"expected each name once, found it in budgets[{first[budget.name]}] too")
        first[budget.name] = index
    return found


def _budget(value: Value) -> Budget:
    given = value.mapping(("name", "period", "peer_minutes", "workspace", "rooms", "roles"))
    return Budget(
        name=values.name(given.get("name", value.member("name"))),
        period=_period(given.get("period", value.member("period"))),
        peer_minutes=_peer_minutes(given.get("peer_minutes", value.member("peer_minutes"))),
        workspace=values.name(given["workspace"]) if "workspace" in given else None,
        rooms=_names(given["rooms"]) if "rooms" in given else None,
        roles=_names(given["roles"]) if "roles" in given else None,
    )


def _names(value: Value) -> frozenset[str]:
    found = [values.name(item) for item in value.items("a list of names")]
    if not found:
        raise value.error("expected at least one name; leave the key out for all of them")
    return frozenset(found)


def prices(value: Value) -> Prices | None:
    """Reads the prices.  Raises `ConfigError`."""
    if value.is_null:
        return None
    given = value.mapping(("currency", "per_peer_minute", "free_peer_minutes"))
    price = given.get("per_peer_minute", value.member("per_peer_minute"))
    if price.is_scalar:
        by_role = {DEFAULT_ROLE: _price(price)}
    else:
        by_role = {role: _price(member) for role, member in price.entries("a price, or a mapping of roles to prices").items()}
        if not by_role:
            raise price.error("expected at least one role with its price")
    return Prices(
        currency=values.name(given.get("currency", value.member("currency"))),
        per_peer_minute=by_role,
        free_peer_minutes=_peer_minutes(given["free_peer_minutes"]) if "free_peer_minutes" in given else 0.0,
    )
