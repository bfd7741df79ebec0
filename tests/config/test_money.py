"""Budgets and prices in the configuration: their meaning, and the exact message for each invalid one."""

from __future__ import annotations

import pytest

from exporter.config.config import METERS, Budget, Config, ConfigError, Prices, parse

METER = "expected peer_minutes, recording_minutes, live_stream_minutes or external_stream_minutes"
BASE = "workspaces: [{name: w, access_key: k, secret: s}]\n"


def read(text: str) -> Config:
    return parse(BASE + text, {}, "config.yaml")


def test_a_budget_of_everything_and_one_of_a_part() -> None:
    config = read(
        "budgets:\n"
        "  - {name: plan, period: month, peer_minutes: 100000}\n"
        "  - {name: part, period: day, peer_minutes: 0.5, workspace: w, rooms: [one, two], roles: [host]}\n"
    )
    assert config.budgets == (
        Budget("plan", "month", 100000),
        Budget("part", "day", 0.5, "w", frozenset({"one", "two"}), frozenset({"host"})),
    )


def test_one_price_for_all_roles_or_a_price_for_each() -> None:
    assert read("prices: {currency: USD, per_peer_minute: 0.004}").prices == Prices("USD", {"default": 0.004})
    by_role = read("prices: {currency: EUR, per_peer_minute: {default: 0.004, viewer: 0.001}, free_peer_minutes: 10000}").prices
    assert by_role == Prices("EUR", {"default": 0.004, "viewer": 0.001}, 10000)
    assert by_role is not None
    assert (by_role.of("viewer"), by_role.of("host")) == (0.001, 0.004)


def test_each_meter_has_budgets_and_prices_of_its_own() -> None:
    config = read(
        "budgets: [{name: films, period: month, recording_minutes: 3000}]\n"
        "prices: {currency: USD, per_peer_minute: 1, per_recording_minute: 0, per_live_stream_minute: 2, free_recording_minutes: 3}\n"
    )
    (budget,) = config.budgets
    assert (budget.meter, budget.minutes) == ("recording", 3000)
    assert config.prices is not None
    assert [config.prices.per_minute(meter) for meter in ("recording", "live_stream", "external_stream")] == [0, 2, 0]
    assert [config.prices.free_minutes(meter) for meter in METERS] == [0, 3, 0, 0]


@pytest.mark.parametrize("text", ["", "budgets:\n", "budgets: []\n", "prices:\n"])
def test_nothing_said_is_nothing_planned(text: str) -> None:
    config = read(text)
    assert (config.budgets, config.prices) == ((), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budgets: 5", "budgets: expected a list of budgets, found a single value"),
        ("budgets: [{name: a, period: week, peer_minutes: 1}]", "budgets[0].period: expected day or month, found 'week'"),
        ("budgets: [{name: a, peer_minutes: 1}]", "budgets[0].period: expected day or month, found nothing"),
        ("budgets: [{period: day, peer_minutes: 1}]", "budgets[0].name: expected a name of 1 to 100 printable characters, found nothing"),
        (
            "budgets: [{name: a, period: day}]",
            f"budgets[0]: {METER}, found none",
        ),
        (
            "budgets: [{name: a, period: day, peer_minutes: 0}]",
            "budgets[0].peer_minutes: expected a number above 0, at most 1e+12, found '0'",
        ),
        ("budgets: [{name: a, period: day, peer_minutes: 1, room: x}]", "budgets[0].room: unknown key, did you mean rooms?"),
        (
            "budgets: [{name: a, period: day, peer_minutes: 1, rooms: []}]",
            "budgets[0].rooms: expected a list of one or more names (leave the key out for all of them), found an empty one",
        ),
        (
            "budgets: [{name: a, period: day, peer_minutes: 1, workspace: x}]",
            "budgets[0].workspace: expected the name of one of the workspaces",
        ),
        (
            "budgets: [{name: a, period: day, peer_minutes: 1}, {name: a, period: month, peer_minutes: 1}]",
            "budgets[1]: expected a name of its own, budgets[0] has the same",
        ),
        (
            "budgets: [{name: a, period: day, peer_minutes: 1, recording_minutes: 1}]",
            f"budgets[0]: {METER}, found peer_minutes and recording_minutes",
        ),
        (
            "budgets: [{name: a, period: day, live_stream_minutes: 1, roles: [host]}]",
            "budgets[0].roles: expected roles beside peer_minutes only",
        ),
        (
            "prices: {currency: USD, per_peer_minute: 1, per_recording_minute: -1}",
            "prices.per_recording_minute: expected a number from 0 to 1e+06, found '-1'",
        ),
        ("prices: {currency: USD}", "prices.per_peer_minute: expected a number above 0, at most 1e+06, found nothing"),
        ("prices: {per_peer_minute: 1}", "prices.currency: expected a name of 1 to 100 printable characters, found nothing"),
        ("prices: {currency: USD, per_peer_minute: {}}", "prices.per_peer_minute: expected at least one role with its price"),
        (
            "prices: {currency: USD, per_peer_minute: {host: -1}}",
            "prices.per_peer_minute.host: expected a number above 0, at most 1e+06, found '-1'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(text)
    assert str(raised.value) == f"config.yaml: {message}"
