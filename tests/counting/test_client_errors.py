"""The counters of errors at the clients of a call."""

from __future__ import annotations

from exporter.counting.changes import Over
from exporter.counting.client_errors import BY_SDK, ERRORS, MOST_CODES, MOST_SDKS, count
from exporter.counting.contribution import group_account, room_account
from exporter.counting.sums import Series, Sums
from exporter.counting.webhooks import WORKSPACE, Counter
from exporter.hms.client_errors import ClientError
from exporter.times import HOUR
from tests.harness import T0

HALL = Over("r", room_account("r"), T0, T0 + HOUR)
CLASSES = Over("c", group_account("classes"), T0, T0 + HOUR)


def error(number: int, session_id: str = "s", kind: str = "join", code: str = "4006", sdk: str = "web") -> ClientError:
    return ClientError(f"e{number}", session_id, kind, code, sdk)


def values(sums: Sums, name: str) -> dict[tuple[str, ...], int]:
    return {series.labels: found.value for of in sums.of.values() for series, found in of.items() if series.name == name}


def test_errors_count_in_the_room_of_their_call_by_type_and_code() -> None:
    sums = Sums()
    count(sums, "s", HALL, [error(1), error(2), error(3, kind="publish", code="3001")])
    assert sums.of[HALL.account] == {
        Series(ERRORS, ("join", "4006")): Counter(T0, 2),
        Series(ERRORS, ("publish", "3001")): Counter(T0, 1),
    }


def test_errors_count_in_the_group_that_the_room_belongs_to() -> None:
    sums = Sums()
    count(sums, "s", CLASSES, [error(1)])
    assert set(sums.of) == {CLASSES.account, WORKSPACE}


def test_errors_count_in_the_workspace_by_the_kind_of_client() -> None:
    sums = Sums()
    count(sums, "s", HALL, [error(1), error(2, sdk="ios")])
    count(sums, "t", CLASSES, [error(3, "t")])
    assert values(sums, BY_SDK) == {("join", "web"): 2, ("join", "ios"): 1}


def test_errors_of_no_call_or_of_another_one_do_not_count() -> None:
    sums = Sums()
    count(sums, "s", HALL, [error(1, ""), error(2, "t")])
    assert sums.of == {}


def test_an_error_that_is_shown_twice_counts_once() -> None:
    sums = Sums()
    count(sums, "s", HALL, [error(1), error(1)])
    assert values(sums, ERRORS) == {("join", "4006"): 1}


def test_the_first_hundred_codes_keep_their_label_and_later_ones_share_one() -> None:
    sums = Sums()
    count(sums, "s", HALL, [error(code, code=str(code)) for code in range(MOST_CODES + 5)])
    found = values(sums, ERRORS)
    assert len(found) == MOST_CODES + 1
    assert found["join", "other"] == 5
    assert ("join", str(MOST_CODES)) not in found


def test_a_code_that_has_its_label_keeps_it_in_other_rooms_and_for_other_types() -> None:
    sums = Sums()
    count(sums, "s", HALL, [error(code, code=str(code)) for code in range(MOST_CODES)])
    count(sums, "t", CLASSES, [error(1000, "t", "publish", "7")])
    assert values(sums, ERRORS)["publish", "7"] == 1


def test_kinds_of_clients_have_a_bound_too() -> None:
    sums = Sums()
    count(sums, "s", HALL, [error(number, sdk=f"sdk{number}") for number in range(MOST_SDKS + 3)])
    assert len(values(sums, BY_SDK)) == MOST_SDKS + 1
    assert values(sums, BY_SDK)["join", "other"] == 3
