"""Management tokens: their claims, their renewal, and that they follow the API's clock and not this machine's."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from exporter.config.config import ApiConfig, ConfigError, KeyPair, ManagementToken, Secret
from exporter.hms.client import Api
from exporter.hms.errors import ApiError
from exporter.hms.pace import Patience
from exporter.hms.tokens import LIFE, Tokens
from exporter.publish.selfmetrics import SelfMetrics, WorkspaceMetrics
from exporter.simulator import Fault, SimulatedApi, World, management_token, real_clock, shifted_clock
from exporter.times import DAY, HOUR, SECOND

ACCESS_KEY, SECRET = "key-of-the-tests", "secret-of-the-tests-which-is-long-enough"
PAIR = KeyPair(Secret(ACCESS_KEY), Secret(SECRET))
NOW = 1_770_785_026


# --- minting ---


def test_a_token_says_what_100ms_demands_and_is_signed_with_the_secret() -> None:
    token = Tokens(PAIR).current(NOW)
    options: jwt.types.Options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    claims = jwt.decode(token.text, SECRET, algorithms=["HS256"], options=options)
    uuid.UUID(claims.pop("jti"))
    times = {name: claims.pop(name) for name in ("iat", "nbf", "exp")}
    assert claims == {"access_key": ACCESS_KEY, "type": "management", "version": 2}
    assert times == {"iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 24 * 3600}
    assert token.expires == times["exp"]


@pytest.mark.parametrize("secret", ["ssh-rsa AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_a_secret_that_is_a_key_of_another_kind_is_an_error_of_the_configuration(secret: str) -> None:
    with pytest.raises(ConfigError, match=r"^the secret signs no token: expected the app secret"):
        Tokens(KeyPair(Secret(ACCESS_KEY), Secret(secret))).current(NOW)


def test_a_token_serves_until_it_is_about_to_expire() -> None:
    tokens = Tokens(PAIR)
    first = tokens.current(NOW)
    assert tokens.current(NOW + LIFE - 3601) is first
    second = tokens.current(NOW + LIFE - 3599)
    assert second.text != first.text
    assert second.expires == NOW + 2 * LIFE - 3599


def test_of_many_threads_with_a_refused_token_one_makes_the_new_one() -> None:
    tokens = Tokens(PAIR)
    refused = tokens.current(NOW).text
    renewed: list[bool] = []
    threads = [threading.Thread(target=lambda: renewed.append(tokens.renew(refused, NOW))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert renewed == [True] * 8
    assert not tokens.renew(refused, NOW) or tokens.current(NOW).text != refused


def test_a_ready_made_token_is_used_as_it_is_and_its_expiry_read() -> None:
    text = jwt.encode({"exp": NOW + 7 * LIFE}, "a key that only 100ms has, of enough bytes", "HS256")
    tokens = Tokens(ManagementToken(Secret(text)))
    assert tokens.current(NOW) == (text, NOW + 7 * LIFE, False)
    assert tokens.current(NOW + 8 * LIFE).text == text, "an expired one too: 100ms decides"
    assert not tokens.renew(text, NOW), "there is no other"


@pytest.mark.parametrize("text", ["opaque", "a.b.c", jwt.encode({}, "k" * 32), jwt.encode({"exp": "soon"}, "k" * 32), "ey.ey.ey"])
def test_a_ready_made_token_need_not_say_when_it_expires(text: str) -> None:
    assert Tokens(ManagementToken(Secret(text))).current(NOW) == (text, float("inf"), False)


def test_a_secret_in_a_file_is_read_for_each_new_token(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    tokens = Tokens(KeyPair(Secret(ACCESS_KEY), Secret(path=path)))
    first = tokens.current(NOW)
    jwt.decode(first.text, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False, "verify_nbf": False})
    path.write_text("another-secret-which-is-also-long-enough")
    assert tokens.current(NOW) is first
    assert tokens.renew(first.text, NOW)
    second = tokens.current(NOW).text
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(second, SECRET, algorithms=["HS256"])
    path.unlink()
    with pytest.raises(ConfigError) as caught:
        tokens.renew(second, NOW)
    assert SECRET not in str(caught.value)


# --- against the API ---


@pytest.fixture
def world() -> World:
    return World(ACCESS_KEY, SECRET)


@pytest.fixture
def sim(world: World) -> Iterator[SimulatedApi]:
    with SimulatedApi([world]) as running:
        yield running


def build(sim: SimulatedApi, credentials: KeyPair | ManagementToken = PAIR) -> tuple[Api, SelfMetrics]:
    metrics = SelfMetrics("test", "test")
    config = ApiConfig(base_url=sim.base_url, timeout=2.0, max_retries=0, max_requests_per_second=1000.0)
    return Api(config, credentials, WorkspaceMetrics(metrics, "w", 30.0)), metrics


def ask(api: Api) -> None:
    for _ in api.client().pages("/sessions", {"active": "true"}, Patience.from_now()):
        pass


def value(metrics: SelfMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"workspace": "w", **labels})


@pytest.mark.parametrize("offset", [0, 3, -3, HOUR // SECOND, -HOUR // SECOND, DAY // SECOND, -DAY // SECOND, 400 * 86400])
def test_a_machine_whose_clock_is_wrong_still_gets_in(sim: SimulatedApi, offset: int) -> None:
    sim.clock = shifted_clock(offset * SECOND)
    api, metrics = build(sim)
    ask(api)
    assert sim.requests[-1].authorized
    assert len(sim.requests) <= 2, "a refusal tells the time, so the second token is valid"
    assert abs(api.skew() - offset) < 1.5
    skew = value(metrics, "hms_exporter_clock_skew_seconds")
    assert skew is not None
    assert abs(skew - offset) < 1.5
    ask(api)
    assert sim.requests[-1].authorized
    expiry = value(metrics, "hms_exporter_token_expiry_timestamp_seconds")
    assert expiry is not None
    assert 3600 - 5 < expiry - sim.clock() / SECOND < LIFE + 5, "good for an hour at least, by the API's clock"


def test_a_token_is_told_to_be_minted_or_ready_made(sim: SimulatedApi, world: World) -> None:
    """An alert must know whether a person has to replace the token."""
    ready_made = ManagementToken(Secret(management_token(world, real_clock())))
    for credentials, minted in ((PAIR, 1.0), (ready_made, 0.0)):
        api, metrics = build(sim, credentials)
        ask(api)
        assert value(metrics, "hms_exporter_token_minted") == minted


def test_a_clock_of_the_api_that_is_set_while_running_is_followed(sim: SimulatedApi) -> None:
    api, _ = build(sim)
    ask(api)
    for offset in (DAY, -DAY, 0):
        sim.clock = shifted_clock(offset)
        ask(api)
        ask(api)  # one answer alone might be a mistake
        assert abs(api.skew() - offset / SECOND) < 1.5


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_answered_with_a_new_token_at_once_and_once(sim: SimulatedApi, status: int) -> None:
    api, metrics = build(sim)
    ask(api)
    before = api.tokens.current(api.now() // SECOND).text
    sim.faults.add(Fault(kind="status", status=status, times=1))
    ask(api)
    assert api.tokens.current(api.now() // SECOND).text != before
    sim.faults.clear()
    sim.clear()
    sim.faults.add(Fault(kind="status", status=status))
    with pytest.raises(ApiError) as caught:
        ask(api)
    assert caught.value.refused
    assert len(sim.requests) == 2, "tried again once, and no more"
    assert value(metrics, "hms_exporter_api_requests_total", endpoint="/sessions", code=str(status)) == 3
    assert value(metrics, "hms_exporter_api_retries_total") == 0, "a renewed token is not a retry of a fault"


def test_a_secret_replaced_in_its_file_is_taken_up_after_the_refusal(sim: SimulatedApi, world: World, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    api, _ = build(sim, KeyPair(Secret(ACCESS_KEY), Secret(path=path)))
    ask(api)
    world.secret = "the-secret-as-the-dashboard-has-it-now-long"
    with pytest.raises(ApiError):
        ask(api)
    path.write_text(world.secret)
    ask(api)
    assert sim.requests[-1].authorized


def test_a_ready_made_token_replaced_in_its_file_is_taken_up_after_the_refusal(sim: SimulatedApi, world: World, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(management_token(world, real_clock() - 3 * DAY))
    api, _ = build(sim, ManagementToken(Secret(path=path)))
    with pytest.raises(ApiError) as caught:
        ask(api)
    assert caught.value.refused
    assert len(sim.requests) == 1, "the same token is not sent twice"
    path.write_text(management_token(world, real_clock()))
    ask(api)


def test_a_secret_file_that_is_gone_is_a_refusal_that_says_so_and_mends(sim: SimulatedApi, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    api, _ = build(sim, KeyPair(Secret(ACCESS_KEY), Secret(path=path, where="config.yaml: workspaces[0].secret_file")))
    with pytest.raises(ApiError, match="secret_file") as caught:
        ask(api)
    assert caught.value.refused
    assert sim.requests == []
    path.write_text(SECRET)
    ask(api)
