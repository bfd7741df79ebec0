"""The `budgets` and `prices` sections: minutes that are planned, and what a minute costs, for each meter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from exporter.config import readers as values
from exporter.config.value import Value, listed, only_one, required, section, setting
from exporter.times import PERIODS, Period

Meter = Literal["peer", "recording", "live_stream", "external_stream"]
METERS: tuple[Meter, ...] = get_args(Meter)
"""What 100ms bills by the minute."""

DEFAULT_ROLE = "default"
"""In `prices.per_peer_minute`: the price of every role that has none of its own."""

_planned = values.number(1e12, zero=False)
_free = values.number(1e12)
_peer_price = values.number(1e6, zero=False)
_price = values.number(1e6)


def _some_names(value: Value) -> frozenset[str]:
    return frozenset(map(values.name, value.items("a list of one or more names (leave the key out for all of them)", some=True)))


@dataclass(frozen=True, slots=True)
class Budget:
    """Minutes of one meter planned for a UTC day or month: of everything, or of one workspace, some rooms (names or ids), some roles."""

    name: str = required(values.name)
    period: Period = required(values.words(*PERIODS))
    peer_minutes: float | None = setting(None, _planned)
    workspace: str | None = setting(None, values.name)
    rooms: frozenset[str] | None = setting(None, _some_names)
    roles: frozenset[str] | None = setting(None, _some_names)
    recording_minutes: float | None = setting(None, _planned)
    live_stream_minutes: float | None = setting(None, _planned)
    external_stream_minutes: float | None = setting(None, _planned)

    @property
    def meter(self) -> Meter:
        """What the budget is of: minutes of one meter are given."""
        return next(meter for meter, key in _MINUTES.items() if getattr(self, key) is not None)

    @property
    def minutes(self) -> float:
        """How many minutes it allows."""
        return float(getattr(self, _MINUTES[self.meter]))


_MINUTES: dict[Meter, str] = {meter: f"{meter}_minutes" for meter in METERS}
_budget_keys = section(Budget)


def _budget(value: Value) -> Budget:
    found = _budget_keys(value)
    key = only_one(value, _MINUTES.values())
    if found.roles is not None and key != "peer_minutes":
        raise value.member("roles").error("expected roles beside peer_minutes only")
    return found


budgets = listed("a list of budgets", _budget, lambda budget: [("a name", budget.name)], some=False)
"""Reads the list of budgets.  Raises `ConfigError`."""


def _prices_by_role(value: Value) -> dict[str, float]:
    if value.is_scalar:
        return {DEFAULT_ROLE: _peer_price(value)}
    by_role = {role: _peer_price(member) for role, member in value.entries("a price, or a mapping of roles to prices").items()}
    if not by_role:
        raise value.error("expected at least one role with its price")
    return by_role


@dataclass(frozen=True, slots=True)
class Prices:
    """What a minute of each meter costs, beyond the minutes that are free each month in each workspace."""

    currency: str = required(values.name)
    per_peer_minute: dict[str, float] = required(_prices_by_role)
    free_peer_minutes: float = setting(0.0, _free)
    per_recording_minute: float = setting(0.0, _price)
    free_recording_minutes: float = setting(0.0, _free)
    per_live_stream_minute: float = setting(0.0, _price)
    free_live_stream_minutes: float = setting(0.0, _free)
    per_external_stream_minute: float = setting(0.0, _price)
    free_external_stream_minutes: float = setting(0.0, _free)

    def of(self, role: str) -> float:
        """The price of a peer-minute in this role; 0 when neither it nor `default` has one."""
        return self.per_peer_minute.get(role, self.per_peer_minute.get(DEFAULT_ROLE, 0.0))

    def per_minute(self, meter: Literal["recording", "live_stream", "external_stream"]) -> float:
        """The price of a minute of a meter that knows no roles."""
        return float(getattr(self, f"per_{meter}_minute"))

    def free_minutes(self, meter: Meter) -> float:
        """The minutes of a meter that cost nothing, each month in each workspace."""
        return float(getattr(self, f"free_{meter}_minutes"))


prices = section(Prices)
"""Reads the prices.  Raises `ConfigError`."""
