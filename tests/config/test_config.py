"""The meaning of a configuration.  The messages about invalid ones are tested in `test_messages.py`."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config.config import (
    ApiConfig,
    CollectConfig,
    Config,
    ConfigError,
    KeyPair,
    LimitsConfig,
    ListenAddress,
    LogConfig,
    ManagementToken,
    PollConfig,
    RoomById,
    RoomsByName,
    Secret,
    StorageConfig,
    WebConfig,
    WorkspaceConfig,
    format_duration,
    load,
    parse,
    parse_duration,
    with_flags,
)

SAMPLE = Path(__file__).parent.parent.parent / "config.yaml"
CANARY = "c4nary"
PAIR = {"HMS_ACCESS_KEY": "the-key", "HMS_SECRET": "the-secret"}
DEFAULTS = Config((WorkspaceConfig("default", KeyPair(Secret("the-key"), Secret("the-secret"))),))
WORKSPACE = "workspaces: [{name: a, access_key: k, secret: s}]\n"


def parsed(text: str, **environ: str) -> Config:
    return parse(text, environ, "config.yaml")


def rooms(text: str, **environ: str) -> tuple[RoomById | RoomsByName, ...]:
    found = parsed(f"workspaces: [{{name: a, access_key: k, secret: s, rooms: {text}}}]", **environ).workspaces[0].rooms
    assert found is not None
    return found


class TestSample:
    """`config.yaml` of the repository."""

    def test_works_as_it_stands_and_shows_the_defaults(self) -> None:
        assert load(SAMPLE, PAIR) == DEFAULTS

    def test_explains_every_key(self) -> None:
        sample = yaml.safe_load(SAMPLE.read_text())
        sections = {key.name: key.type for key in fields(Config)}
        assert list(sample) == list(sections)
        for name, value in vars_of(DEFAULTS).items():
            if is_dataclass(value):
                given = [key.name for key in fields(value) if "read" in key.metadata and key.name != "url"]
                assert list(sample[name]) == given
        for key in ("url", "url_file", "listen_address", "headers", "signature_secret"):
            assert f"  # {key}:" in SAMPLE.read_text()
        for key in ("access_key_file", "secret_file", "management_token", "management_token_file", "rooms"):
            assert f"    # {key}:" in SAMPLE.read_text()

    def test_has_examples_that_work_once_uncommented(self) -> None:
        text = re.sub(r"^    # (rooms:|  - )", r"    \1", SAMPLE.read_text(), flags=re.MULTILINE)
        (workspace,) = parse(text, PAIR, "config.yaml").workspaces
        assert workspace.rooms == (
            RoomById("61652b404e556e35f2179759"),
            RoomById("6204fea00c108fa49d599d79", "daily-standup"),
            RoomsByName(re.compile("support-.*")),
            RoomsByName(re.compile("class-(?P<school>[a-z]+)-.*"), "class-${school}"),
        )

    def test_has_budgets_and_prices_that_work_once_uncommented(self) -> None:
        budgets_and_prices = SAMPLE.read_text().partition("\nbudgets:")
        text = budgets_and_prices[0] + "\nbudgets:" + re.sub(r"^  # ", "  ", budgets_and_prices[2], flags=re.MULTILINE)
        config = parse(text, PAIR, "config.yaml")
        assert [budget.name for budget in config.budgets] == ["plan", "support"]
        assert config.prices is not None
        assert config.prices.free_peer_minutes == 10000


def vars_of(value: Any) -> dict[str, Any]:
    return {key.name: getattr(value, key.name) for key in fields(value)}


class TestSettings:
    """The sections other than `workspaces`."""

    def test_every_section_can_be_set(self) -> None:
        text = """
            workspaces:
              - {name: one, access_key: k, secret: s}
              - {name: two, management_token: t}
            api: {base_url: 'https://api.example.com:8443/v2/', timeout: 1m30s, page_size: 20, max_requests_per_second: 0.5, max_retries: 0}
            poll: {interval: 1h, since: 30d}
            storage: {path: /var/lib/hms/state.db}
            web: {listen_address: '[::1]:0', enable_lifecycle: yes}
            limits: {max_rooms: 0, room_idle_expiry: 7d}
            log: {level: debug, format: json}
        """
        assert parsed(text) == Config(
            workspaces=(
                WorkspaceConfig("one", KeyPair(Secret("k"), Secret("s"))),
                WorkspaceConfig("two", ManagementToken(Secret("t"))),
            ),
            api=ApiConfig(
                base_url="https://api.example.com:8443/v2", timeout=90.0, page_size=20, max_requests_per_second=0.5, max_retries=0
            ),
            poll=PollConfig(interval=3600.0, since=timedelta(days=30)),
            storage=StorageConfig(Path("/var/lib/hms/state.db")),
            web=WebConfig(listen_address=(ListenAddress("::1", 0),), enable_lifecycle=True),
            limits=LimitsConfig(max_rooms=0, room_idle_expiry=7 * 86400.0),
            log=LogConfig(level="debug", format="json"),
        )

    def test_a_section_whose_keys_are_all_commented_out_is_the_default(self) -> None:
        assert parsed(f"{WORKSPACE}api:\n  # timeout: 5s\npoll:\n").api == ApiConfig()

    @pytest.mark.parametrize(
        ("written", "moment"),
        [
            ("2026-02-01T00:00:00Z", datetime(2026, 2, 1, tzinfo=UTC)),
            ("'2026-02-01T00:00:00Z'", datetime(2026, 2, 1, tzinfo=UTC)),
            ("2026-02-01T05:30:00.25+05:30", datetime(2026, 2, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
            ("2026-02-01 00:00:00.123456789z", datetime(2026, 2, 1, 0, 0, 0, 123_456, tzinfo=UTC)),
            ("1s", timedelta(seconds=1)),
            ("start", "start"),
        ],
    )
    def test_since_is_the_start_a_duration_or_a_moment(self, written: str, moment: object) -> None:
        assert parsed(f"{WORKSPACE}poll: {{since: {written}}}").poll.since == moment

    @pytest.mark.parametrize(
        ("written", "address"),
        [
            (":10100", ListenAddress("", 10100)),
            ("localhost:0", ListenAddress("localhost", 0)),
            ("0.0.0.0:65535", ListenAddress("0.0.0.0", 65535)),
            ("'[::]:80'", ListenAddress("::", 80)),
            ("metrics_host.example.com:9100", ListenAddress("metrics_host.example.com", 9100)),
        ],
    )
    def test_a_listen_address_is_a_host_and_a_port(self, written: str, address: ListenAddress) -> None:
        assert parsed(f"{WORKSPACE}web:\n  listen_address: {written}").web.listen_address == (address,)
        assert str(address) == written.strip("'"), "messages show it as it was written"

    @pytest.mark.parametrize(
        "url", ["http://localhost:8080", "http://127.8.9.1/v2", "http://[::1]:80/v2", "https://example.com", "HTTPS://a.b"]
    )
    def test_a_base_url_is_encrypted_or_of_this_machine(self, url: str) -> None:
        assert parsed(f"{WORKSPACE}api:\n  base_url: {url}//").api.base_url == url

    def test_plain_http_elsewhere_must_be_asked_for_by_name(self) -> None:
        text = f"{WORKSPACE}api: {{base_url: 'http://gateway:8080/v2', allow_plain_http: true}}"
        assert parsed(text).api == ApiConfig(base_url="http://gateway:8080/v2", allow_plain_http=True)


class TestYaml:
    """YAML 1.1 without its guesses."""

    @pytest.mark.parametrize("name", ["no", "22:22", "1e3", "012", "0x1f", "2026-02-01", "616524040435562359217975", "true", ".5"])
    def test_a_text_without_quotes_is_the_text_that_was_written(self, name: str) -> None:
        assert rooms(f"[{{id: {name}, name: {name}}}, {{match: {name}}}]") == (RoomById(name, name), RoomsByName(re.compile(name)))

    def test_anchors_and_merge_keys_work_and_what_is_said_beside_a_merge_wins(self) -> None:
        text = """
            workspaces:
              - &shared {name: one, access_key: k, secret: s, rooms: [&room 6204fea0, b]}
              - <<: *shared
                name: two
                rooms: [*room]
              - {<<: [{name: three}, *shared]}
        """
        one, two, three = parsed(text).workspaces
        assert (one.name, two.name, three.name) == ("one", "two", "three")
        assert one.credentials == two.credentials == three.credentials
        assert (two.rooms, three.rooms) == ((RoomById("6204fea0"),), one.rooms)

    @pytest.mark.parametrize("version", ["1.1", "1.2"])
    def test_the_version_of_yaml_may_be_stated_and_changes_nothing(self, version: str) -> None:
        assert parsed(f"%YAML {version}\n---\n{WORKSPACE}poll: {{interval: 5s}}").poll.interval == 5.0

    def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(self) -> None:
        assert parsed("\N{BYTE ORDER MARK}" + WORKSPACE.replace("\n", "\r\n") + "poll:\r\n  interval: 5s\r\n").poll.interval == 5.0


class TestRooms:
    """The rooms of a workspace."""

    def test_left_out_are_all_rooms_of_the_workspace(self) -> None:
        assert parsed(WORKSPACE).workspaces[0].rooms is None

    @pytest.mark.parametrize(
        ("match", "group", "name", "expected"),
        [
            ("class-(?P<school>[a-z]+)-.*", "class-${school}", "class-oak-7b", "class-oak"),
            ("class-(?P<school>[a-z]+)-.*", None, "class-oak-7b", None),
            ("(?P<a>.)(?P<b>.)", "${b}${a}$${a} $a", "xy", "yx${a} $a"),
            ("a(?P<b>b)?", "${b}", "a", None),
            ("(?P<a>.*)", "${a}", "_other", None),
            ("a", "all", "ab", None),
        ],
    )
    def test_a_group_is_filled_in_from_the_pattern(self, match: str, group: str | None, name: str, expected: str | None) -> None:
        (room,) = rooms(f"[{{match: '{match}'{f', group: {group!r}' if group else ''}}}]")
        assert isinstance(room, RoomsByName)
        assert room.group_for(name) == expected

    def test_ids_and_names_are_filled_in_from_the_environment_but_patterns_and_groups_are_not(self) -> None:
        found = rooms("[{id: '${ID}', name: 'x-${ID}'}, {match: 'a(?P<ID>b)${NOPE}', group: '${ID}'}]", ID="6204fea0")
        assert found == (RoomById("6204fea0", "x-6204fea0"), RoomsByName(re.compile("a(?P<ID>b)${NOPE}"), "${ID}"))


class TestEnvironment:
    """`${NAME}` in texts."""

    @pytest.mark.parametrize(
        ("written", "name"),
        [
            ("${X}", "ex"),
            ("<${X}${X}>", "<exex>"),
            ("${X:-d}", "ex"),
            ("${NOPE:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("a${EMPTY}b", "ab"),
            ("a${NOPE:-}b", "ab"),
            ("$${X}", "${X}"),
            ("$X costs $5", "$X costs $5"),
            ("${NESTED}", "${X}"),
        ],
    )
    def test_variables_are_filled_in_once(self, written: str, name: str) -> None:
        assert rooms(f"[{{id: a, name: '{written}'}}]", X="ex", EMPTY="", NESTED="${X}") == (RoomById("a", name),)

    def test_numbers_and_switches_may_come_from_it_quoted_or_not(self) -> None:
        text = f"{WORKSPACE}api:\n  page_size: ${{SIZE}}\n  max_retries: '${{RETRIES:-7}}'\nweb: {{enable_lifecycle: '${{ON}}'}}"
        config = parsed(text, SIZE="50", ON="true")
        assert (config.api.page_size, config.api.max_retries, config.web.enable_lifecycle) == (50, 7, True)

    def test_its_values_are_never_read_as_yaml(self) -> None:
        assert rooms("[{id: a, name: '${X}'}]", X="{id: b}, *x") == (RoomById("a", "{id: b}, *x"),)


class TestLoad:
    """Files and the process environment."""

    @pytest.fixture(autouse=True)
    def in_an_empty_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def refused(self, path: Path | None, **environ: str) -> str:
        with pytest.raises(ConfigError) as error:
            load(path, environ)
        return str(error.value)

    def test_without_a_file_the_environment_is_enough(self) -> None:
        assert load(None, PAIR) == DEFAULTS
        (workspace,) = load(None, {"HMS_MANAGEMENT_TOKEN": "t"}).workspaces
        assert workspace == WorkspaceConfig("default", ManagementToken(Secret("t")))

    def test_the_file_of_this_folder_wins_over_the_environment_alone(self) -> None:
        Path("config.yaml").write_text(WORKSPACE)
        assert load(None, PAIR).workspaces[0].name == "a"

    def test_with_neither_it_says_what_to_do(self) -> None:
        expected = "no configuration: expected a file config.yaml here, --config.file, or in the environment "
        assert self.refused(None, HMS_SECRET="") == f"{expected}HMS_ACCESS_KEY and HMS_SECRET, or HMS_MANAGEMENT_TOKEN"

    def test_half_or_double_credentials_in_the_environment_are_refused(self) -> None:
        expected = "environment: expected HMS_ACCESS_KEY and HMS_SECRET, or HMS_MANAGEMENT_TOKEN, found"
        assert self.refused(None, HMS_SECRET=CANARY) == f"{expected} HMS_SECRET"
        assert (
            self.refused(None, **PAIR, HMS_MANAGEMENT_TOKEN=CANARY) == f"{expected} HMS_ACCESS_KEY and HMS_MANAGEMENT_TOKEN and HMS_SECRET"
        )

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        assert self.refused(Path("absent.yaml"), **PAIR) == "absent.yaml: cannot be read: No such file or directory"
        assert self.refused(tmp_path, **PAIR) == f"{tmp_path}: cannot be read: Is a directory"
        assert self.refused(Path("nul\0.yaml")) == "nul .yaml: embedded null byte"
        Path("config.yaml").symlink_to("nowhere")
        assert self.refused(None, **PAIR) == "config.yaml: cannot be read: No such file or directory"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a: \xff", "expected UTF-8 text, found another byte at position 3"),
            ("a: b".encode("utf-16"), "expected UTF-8 text, found another byte at position 0"),
            (b"a: \0", "line 1, column 4: expected text, found a control character"),
            (b"#" * (4 * 1024 * 1024 + 1), "expected a file of at most 4096 KiB"),
        ],
    )
    def test_a_file_that_is_no_text_is_refused(self, content: bytes, message: str) -> None:
        Path("bad.yaml").write_bytes(content)
        assert self.refused(Path("bad.yaml")) == f"bad.yaml: {message}"

    def test_secret_files_lie_beside_the_configuration_and_are_read_anew(self, tmp_path: Path) -> None:
        folder = tmp_path / "etc"
        folder.mkdir()
        (folder / "key").write_text("first\n")
        (folder / "secret").write_bytes(b"  s3cret\r\n")
        (folder / "hms.yaml").write_text("workspaces: [{name: a, access_key_file: key, secret_file: '${DIR}/secret'}]")
        credentials = load(Path("etc/hms.yaml"), {"DIR": str(folder)}).workspaces[0].credentials
        assert isinstance(credentials, KeyPair)
        assert (credentials.access_key.reveal(), credentials.secret.reveal()) == ("first", "s3cret")
        (folder / "key").write_text("second")
        assert credentials.access_key.reveal() == "second"
        (folder / "key").unlink()
        with pytest.raises(ConfigError, match=r"^etc/hms.yaml: workspaces\[0\].access_key_file: etc/key: cannot be read: No such file"):
            credentials.access_key.reveal()

    @pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", b"c4nary\0", "gehëim".encode(), b"\xff", b"x" * 70_000])
    def test_a_secret_file_without_a_secret_is_refused_at_once(self, content: bytes) -> None:
        Path("token").write_bytes(content)
        Path("config.yaml").write_text("workspaces: [{name: a, management_token_file: token}]")
        message = self.refused(None)
        assert message.startswith("config.yaml: workspaces[0].management_token_file: token: expected ")
        assert CANARY not in message

    def test_a_secret_put_where_its_file_belongs_is_not_repeated(self) -> None:
        Path("config.yaml").write_text("workspaces: [{name: a, management_token_file: '${TOKEN}'}]")
        where = "config.yaml: workspaces[0].management_token_file: the file that the environment names"
        assert self.refused(None, TOKEN=CANARY) == f"{where}: cannot be read: No such file or directory"


class TestBesideSessions:
    """Collectors, bots, webhooks, a database."""

    def test_they_can_be_set(self) -> None:
        text = (
            f"{WORKSPACE}collect: {{recordings: false, client_errors: true, interval: 5m}}\nbots: {{roles: []}}\n"
            f"web: {{listen_address: [':1', '[::1]:2'], created_timestamps: true}}\n"
            f"webhooks: {{headers: {{X-Hms-Token: '${{TOKEN}}'}}, signature_secret: s}}\n"
        )
        config = parsed(text, TOKEN=CANARY)
        assert config.collect == CollectConfig(recordings=False, client_errors=True, interval=300.0)
        assert config.bots.roles == frozenset()
        assert config.web == WebConfig(listen_address=(ListenAddress("", 1), ListenAddress("::1", 2)), created_timestamps=True)
        assert config.webhooks is not None
        assert config.webhooks.headers is not None
        assert config.webhooks.headers.reveal() == {"x-hms-token": CANARY}
        assert config.webhooks.listen_address == ListenAddress("", 10101)
        assert CANARY not in repr(config)

    @pytest.mark.parametrize("text", ["", "webhooks:\n"])
    def test_without_the_section_nothing_listens_for_webhooks(self, text: str) -> None:
        assert parsed(WORKSPACE + text).webhooks is None

    @pytest.mark.parametrize("value", ["all", "{x-one: one, X-Two: two}"])
    def test_headers_come_from_one_file_or_a_file_each(self, value: str, tmp_path: Path) -> None:
        (tmp_path / "all").write_text("x-one: 1\nX-Two: '2'\n")
        (tmp_path / "one").write_text("1\n")
        (tmp_path / "two").write_text("2\n")
        (tmp_path / "hms.yaml").write_text(f"{WORKSPACE}webhooks: {{headers_file: {value}}}")
        webhooks = load(tmp_path / "hms.yaml", {}).webhooks
        assert webhooks is not None
        assert webhooks.headers is not None
        assert webhooks.headers.reveal() == {"x-one": "1", "x-two": "2"}
        (tmp_path / "one").unlink()
        (tmp_path / "all").write_text("- no headers")
        with pytest.raises(ConfigError, match=r"hms.yaml: webhooks.headers_file"):
            load(tmp_path / "hms.yaml", {})

    def test_a_database_needs_psycopg(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "hms.yaml"
        path.write_text(f"{WORKSPACE}storage: {{url_file: url}}")
        (tmp_path / "url").write_text("postgresql://exporter@db/hms\n")
        monkeypatch.setattr("exporter.config.config.find_spec", lambda _: None)
        with pytest.raises(ConfigError, match=r"storage.url: expected psycopg .* 'hms-exporter\[postgres\]'"):
            load(path, {})
        monkeypatch.setattr("exporter.config.config.find_spec", lambda _: object())
        config = load(path, {})
        assert config.storage.database() == "postgresql://exporter@db/hms"
        with pytest.raises(ConfigError, match=r"^--storage\.path: expected no state file, storage\.url names a database$"):
            with_flags(config, {"--storage.path": "x.db"})
        (tmp_path / "url").write_text(CANARY)
        with pytest.raises(ConfigError, match=r"storage.url_file: .*: expected a postgresql:// URL$"):
            load(path, {})


class TestFlags:
    """The command line over the file."""

    def test_a_flag_wins_over_the_file_and_the_others_change_nothing(self) -> None:
        flags = {
            "--web.listen-address": ["127.0.0.1:0"],
            "--web.config.file": "web.yml",
            "--storage.path": "x${Y}.db",
            "--log.level": "warn",
        }
        changed = with_flags(DEFAULTS, flags)
        assert changed.web == WebConfig(listen_address=(ListenAddress("127.0.0.1", 0),), config_file=Path("web.yml"))
        assert (changed.storage, changed.log) == (StorageConfig(Path("x${Y}.db")), LogConfig(level="warn", format="logfmt"))
        assert with_flags(changed, {}) == changed

    @pytest.mark.parametrize(
        ("flag", "text", "message"),
        [
            ("--web.listen-address", "10100", "--web.listen-address: expected host:port, :port or [IPv6]:port, found '10100' (a port is"),
            ("--web.config.file", "", "--web.config.file: expected the path of a file, found ''"),
            ("--storage.path", "", "--storage.path: expected the path of a file, found ''"),
            ("--log.level", "INFO", "--log.level: expected debug, info, warn or error, found 'INFO'"),
            ("--log.format", "text", "--log.format: expected logfmt or json, found 'text'"),
        ],
    )
    def test_a_bad_flag_is_named(self, flag: str, text: str, message: str) -> None:
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
            with_flags(DEFAULTS, {flag: text})


class TestDurations:
    """`1h30m` and seconds."""

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("500ms", 0.5),
            ("30s", 30),
            ("5m", 300),
            ("12h", 43_200),
            ("30d", 2_592_000),
            ("1h30m", 5400),
            ("1d2h3m4s5ms", 93_784.005),
            ("90m", 5400),
        ],
    )
    def test_units_are_added_up(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == seconds

    @pytest.mark.parametrize(
        "text", ["", "5", "s", "1.5h", "-1s", "+1s", "1 s", "1S", "1w", "1s1m", "1s1s", "1ms1s", "٣s", "1s\n", "9" * 13 + "s"]
    )
    def test_anything_else_is_none(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"write it as 500ms, 30s or 1h30m|a unit is missing, as in 30s"):
            parse_duration(text)

    @pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (90, "1m30s"), (86_400, "1d"), (0.5, "500ms"), (3600.001, "1h1ms")])
    def test_are_written_as_they_are_read(self, seconds: float, text: str) -> None:
        assert format_duration(seconds) == text

    @given(st.integers(1, 10**12))
    def test_survive_writing_and_reading(self, milliseconds: int) -> None:
        assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


def test_a_secret_is_never_in_a_repr() -> None:
    config = parsed(f"workspaces: [{{name: a, access_key: {CANARY}, secret: {CANARY}}}, {{name: b, management_token: {CANARY}}}]")
    assert CANARY not in repr(config)


# Any file: the loader soon returns a configuration or a message of one line, and never shows a secret.
SECTIONS = (
    Config,
    WorkspaceConfig,
    RoomById,
    RoomsByName,
    KeyPair,
    ApiConfig,
    PollConfig,
    StorageConfig,
    WebConfig,
    LimitsConfig,
    LogConfig,
)
KEYS = st.sampled_from(["management_token", "secret_file", "<<", "?", *(key.name for section in SECTIONS for key in fields(section))])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.datetimes(),
    st.sampled_from(["30s", "a", "${CANARY}", "${NOPE}", "${"]),
)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25)
YAML_LIKE = st.lists(
    st.sampled_from(
        [*"-?:,[]{}#&*!|>'\"%@`\\ \n\t\0~=<$aé0", "\n  ", "- ", ": ", "---\n", "...", "${", "workspaces:", "&a ", "*a", "<<: ", "\\x"]
    )
).map("".join)


def outcome(text: str) -> Config | str:
    """The configuration, or the message about it.  Other exceptions are raised."""
    try:
        return parse(text, {"CANARY": CANARY}, "config.yaml")
    except ConfigError as error:
        return str(error)


@settings(deadline=2000)
@given(st.text() | YAML_LIKE | TREES.map(yaml.safe_dump) | TREES.map(lambda tree: yaml.safe_dump({"workspaces": [tree]})))
def test_any_text_is_a_configuration_or_one_line_of_complaint(text: str) -> None:
    found = outcome(text)
    assert isinstance(found, Config) or (found.startswith("config.yaml: ") and found.isprintable() and CANARY not in found)


@settings(deadline=2000)
@given(st.sampled_from(["access_key", "secret", "management_token"]), st.text(max_size=10), st.sampled_from(["", "'", '"']))
def test_a_secret_is_never_repeated_however_it_is_written(key: str, noise: str, quote: str) -> None:
    for written in (f"{noise}{CANARY}", f"{CANARY}{noise}", f"[{CANARY}{noise}]", f"{{{CANARY}{noise}}}"):
        for glue in (": ", ":", ":\n", " : &", ": *", ": !", ": |\n"):
            assert CANARY not in repr(outcome(f"workspaces:\n- name: a\n  {key}{glue}{quote}{written}{quote}\n"))
