"""A table of invalid configurations, each with the exact message for the user.

`WORKSPACE` is a line that makes the rest the only fault; `rooms(...)` is the same line with a list of rooms.
"""

from __future__ import annotations

import pytest

from exporter.config.config import ConfigError, parse

CANARY = "c4nary"
ENVIRON = {"EMPTY": "", "CANARY": CANARY, "TAB": "a\tb"}
WORKSPACE = "workspaces: [{name: a, access_key: k, secret: s}]\n"


def workspace(more: str) -> str:
    return f"workspaces: [{{name: a, {more}}}]"


def rooms(more: str) -> str:
    return workspace(f"access_key: k, secret: s, rooms: {more}")


NAME = "expected a name of 1 to 100 printable characters"
CREDENTIALS = "expected access_key and secret, or management_token"
ROOM_ID = "expected a room id of 1 to 100 characters without spaces and slashes"
ROOMS = "workspaces[0].rooms: expected a list of one or more rooms (leave the key out for every room of the workspace)"
PATTERN = "workspaces[0].rooms[0].match: expected a regular expression of 1 to 1000 printable characters"
TEMPLATE = "workspaces[0].rooms[0].group: expected a template of 1 to 100 printable characters, such as class-${school}"
INTERVAL = "poll.interval: expected a duration from 1s to 1h"
SINCE = "poll.since: expected start, a duration back from 1s to 3650d, or an RFC 3339 time such as 2026-02-01T00:00:00Z"
PAGE_SIZE = "api.page_size: expected a whole number from 10 to 100"
RATE = "api.max_requests_per_second: expected a number above 0, at most 1000"
URL = "api.base_url: expected an http:// or https:// URL with a host, found something else"
PLAIN_HTTP = "api.base_url: expected https:// (http:// shows the token to the network; api.allow_plain_http: true permits it)"
ADDRESS = "expected host:port, :port or [IPv6]:port"
LISTEN = f"web.listen_address: {ADDRESS}"
SECTIONS = "workspaces, api, poll, collect, storage, web, webhooks, limits, log, bots, budgets or prices"
SAME_ADDRESS = "expected an address of its own, web.listen_address[0] has the same"
WEB_KEYS = "listen_address, enable_lifecycle or created_timestamps"
HEADERS = "webhooks.headers: expected a mapping of names of HTTP headers to their values, each name once"
PORT = "(a port is a number from 0 to 65535)"
SYNTAX = "write it as 500ms, 30s or 1h30m"
ALIAS = "alias (*...) of an unknown anchor, quote text that begins with *"
TAGS = "tags (!...) are not supported, quote text that begins with !"
SUBSTITUTION = "expected ${NAME} or ${NAME:-default}, and $${ for a literal ${"
ENVIRONMENT = "something else in the environment"

NOT_YAML = [
    ("", "is empty"),
    ("# nothing but a comment\n", "is empty"),
    ("---\n", "expected a mapping, found nothing"),
    ("workspaces", "expected a mapping, found a single value"),
    ("[1]", "expected a mapping, found a list"),
    ("a: [1", "line 1, column 6: not YAML: expected ',' or ']'"),
    ("a: b: c", "line 1, column 5: not YAML: mapping values are not allowed here"),
    ("a:\n\t- b", "line 2, column 1: not YAML: found a tab where only spaces may stand"),
    ("a: @b", "line 1, column 4: not YAML: found a character that cannot begin a value, quote the value"),
    ("a: 'b", "line 1, column 6: not YAML: found unexpected end of stream"),
    (r'a: "\d"', "line 1, column 6: not YAML: found an unknown escape, put a text with backslashes in single quotes"),
    (r'a: "\UFFFFFFFF"', "expected YAML, found a number or an escape out of range"),
    ("- a\nb: c", "line 2, column 1: not YAML: expected <block end>"),
    ("a: !!python/object:os.system b", f"line 1, column 4: {TAGS}"),
    ("a: !!str 5", f"line 1, column 4: {TAGS}"),
    ("a: !b!c d", "line 1, column 4: not YAML: found undefined tag handle"),
    ("a: *b", f"line 1, column 4: {ALIAS}"),
    ("a: &b [*b]", f"line 1, column 8: {ALIAS}"),
    ("a: {<<: 5}", "line 1, column 9: expected a mapping to merge (<<)"),
    ("a: \0", "line 1, column 4: expected text, found a control character"),
    ("a: b\nc: \x07", "line 2, column 4: expected text, found a control character"),
    ("%YAML 9.9\n---\na: b", "line 1, column 1: not YAML: found incompatible YAML document (version 1.* is required)"),
    (f"{WORKSPACE}---\n{WORKSPACE}", "line 2, column 1: expected one document, found a second"),
    ("%TAG ! tag:example.org,2000:\n---\na: !b c", f"line 3, column 4: {TAGS}"),
    ("? [a]\n: b", "line 1, column 3: expected the name of a key"),
    ("~: b", "line 1, column 1: expected the name of a key"),
    ("[" * 100_000, "line 1, column 34: nested more than 32 deep"),
    ("- " * 100_000, "line 1, column 67: nested more than 32 deep"),
]

KEYS = [
    (WORKSPACE + WORKSPACE, "workspaces: expected each key once, found it on lines 1 and 2"),
    (WORKSPACE + "poll:\n  interval: 1m\n  interval: 2m", "poll.interval: expected each key once, found it on lines 3 and 4"),
    (workspace("name: b"), "workspaces[0].name: expected each key once, found it on lines 1 and 1"),
    (
        WORKSPACE + "1: x",
        f"?: unknown key, expected {SECTIONS}",
    ),
    (WORKSPACE + "pol: {}", "pol: unknown key, did you mean poll?"),
    (WORKSPACE + "poll: {intervall: 3s}", "poll.intervall: unknown key, did you mean interval?"),
    (WORKSPACE + "poll: {jitter: 3s}", "poll.jitter: unknown key, expected interval or since"),
    (WORKSPACE + "storage: {folder: x}", "storage.folder: unknown key, expected path, url or url_file"),
    (WORKSPACE + "web: {config_file: x}", f"web.config_file: unknown key, expected {WEB_KEYS}"),
    (rooms("[{id: a, nmae: x}]"), "workspaces[0].rooms[0].nmae: unknown key, did you mean name?"),
    (workspace(f"access_key: k, secret:{CANARY}"), "workspaces[0].?: unknown key, did you mean secret?"),
    (
        f"{workspace('access_key: k')}\n{CANARY}:",
        f"?: unknown key, expected {SECTIONS}",
    ),
    (WORKSPACE + "poll: 5", "poll: expected a mapping, found a single value"),
    (WORKSPACE + "poll: []", "poll: expected a mapping, found a list"),
]

SUBSTITUTIONS = [
    (WORKSPACE + "poll: {interval: '${NOPE}'}", "poll.interval: the environment variable NOPE is not set"),
    (WORKSPACE + "poll: {interval: '${NOPE'}", f"poll.interval: {SUBSTITUTION}"),
    (WORKSPACE + "poll: {interval: '${}'}", f"poll.interval: {SUBSTITUTION}"),
    (WORKSPACE + "poll: {interval: '${NOPE:+5s}'}", f"poll.interval: {SUBSTITUTION}"),
    (WORKSPACE + "poll: {interval: '${NOPE:-${CANARY}}'}", f"poll.interval: {SUBSTITUTION}"),
    (WORKSPACE + "poll: {interval: '${CANARY}'}", f"{INTERVAL}, found {ENVIRONMENT} ({SYNTAX})"),
    (WORKSPACE + "api: {page_size: '${EMPTY}'}", f"{PAGE_SIZE}, found {ENVIRONMENT}"),
    (WORKSPACE + "web: {enable_lifecycle: '${CANARY}'}", f"web.enable_lifecycle: expected true or false, found {ENVIRONMENT}"),
    (WORKSPACE + "storage: {path: '${TAB}'}", f"storage.path: expected the path of a file, found {ENVIRONMENT}"),
    (rooms("['${TAB}']"), f"workspaces[0].rooms[0]: {ROOM_ID}, found {ENVIRONMENT}"),
    (workspace("access_key: '${NOPE}', secret: s"), "workspaces[0].access_key: the environment variable NOPE is not set"),
    (workspace("access_key: '${EMPTY}', secret: s"), "workspaces[0].access_key: expected one line of printable ASCII characters"),
    (workspace("access_key: '${TAB}', secret: s"), "workspaces[0].access_key: expected one line of printable ASCII characters"),
]

WORKSPACES = [
    ("api: {}", "workspaces: expected a list of one or more workspaces, found nothing"),
    ("workspaces:", "workspaces: expected a list of one or more workspaces, found nothing"),
    ("workspaces: []", "workspaces: expected a list of one or more workspaces, found an empty one"),
    ("workspaces: {name: a}", "workspaces: expected a list of one or more workspaces, found a mapping"),
    (f"workspaces: ['secret:{CANARY}']", "workspaces[0]: expected a mapping, found a single value"),
    ("workspaces: [null]", "workspaces[0]: expected a mapping, found nothing"),
    ("workspaces: [{access_key: k, secret: s}]", f"workspaces[0].name: {NAME}, found nothing"),
    ("workspaces: [{name: '', access_key: k, secret: s}]", f"workspaces[0].name: {NAME}, found ''"),
    (r'workspaces: [{name: "a\nb", access_key: k, secret: s}]', rf"workspaces[0].name: {NAME}, found 'a\nb'"),
    (f"workspaces: [{{name: {'a' * 101}}}]", f"workspaces[0].name: {NAME}, found '{'a' * 59}…'"),
    ("workspaces: [{name: [a]}]", f"workspaces[0].name: {NAME}, found a list"),
    (
        "workspaces: [&w {name: a, access_key: k, secret: s}, *w]",
        "workspaces[1]: expected a name of its own, workspaces[0] has the same",
    ),
    ("workspaces: [{name: a}]", f"workspaces[0]: {CREDENTIALS}, found neither"),
    (workspace(f"access_key: {CANARY}"), f"workspaces[0]: {CREDENTIALS}, found access_key"),
    (workspace(f"secret_file: {CANARY}"), f"workspaces[0]: {CREDENTIALS}, found secret"),
    (
        workspace(f"access_key: k, secret: s, management_token: {CANARY}"),
        f"workspaces[0]: {CREDENTIALS}, found access_key and secret and management_token",
    ),
    (workspace(f"access_key: k, management_token_file: {CANARY}"), f"workspaces[0]: {CREDENTIALS}, found access_key and management_token"),
    (workspace(f"secret: {CANARY}, secret_file: {CANARY}"), "workspaces[0].secret_file: expected secret or secret_file, found both"),
    (workspace("access_key: k, secret:"), "workspaces[0].secret: expected one line of printable ASCII characters, found nothing"),
    (workspace("access_key: k, secret: ''"), "workspaces[0].secret: expected one line of printable ASCII characters"),
    (workspace("access_key: k, secret: '  '"), "workspaces[0].secret: expected one line of printable ASCII characters"),
    (
        workspace(f"access_key: k, secret: [{CANARY}]"),
        "workspaces[0].secret: expected one line of printable ASCII characters, found a list",
    ),
    (
        workspace(f"access_key: k, secret: {{{CANARY}: 1, {CANARY}: 2}}"),
        "workspaces[0].secret: expected one line of printable ASCII characters, found a mapping",
    ),
    (workspace(f'access_key: k, secret: "{CANARY}\\n"'), "workspaces[0].secret: expected one line of printable ASCII characters"),
    (workspace(f"access_key: k, secret: {CANARY}é"), "workspaces[0].secret: expected one line of printable ASCII characters"),
    (workspace(f"access_key: k, secret: ${{{CANARY}"), "line 1, column 48: not YAML: expected ',' or '}'"),
    (workspace(f"access_key: k, secret: '${{-{CANARY}'"), f"workspaces[0].secret: {SUBSTITUTION}"),
    (workspace(f"access_key: k, secret: *{CANARY}"), f"line 1, column 47: {ALIAS}"),
    (workspace(f"access_key: k, secret: !{CANARY} "), f"line 1, column 47: {TAGS}"),
    (workspace("access_key: k, secret_file: ''"), "workspaces[0].secret_file: expected the path of a file, found ''"),
]

ROOM_LISTS = [
    (rooms("[]"), f"{ROOMS}, found an empty one"),
    (rooms("null"), f"{ROOMS}, found nothing"),
    (rooms("all"), f"{ROOMS}, found a single value"),
    (rooms("[null]"), f"workspaces[0].rooms[0]: {ROOM_ID}, found nothing"),
    (rooms("[[a]]"), "workspaces[0].rooms[0]: expected a mapping, found a list"),
    (rooms("['']"), f"workspaces[0].rooms[0]: {ROOM_ID}, found ''"),
    (rooms("[a/b]"), f"workspaces[0].rooms[0]: {ROOM_ID}, found 'a/b'"),
    (rooms("[a b]"), f"workspaces[0].rooms[0]: {ROOM_ID}, found 'a b'"),
    (rooms("[..]"), f"workspaces[0].rooms[0]: {ROOM_ID}, found '..'"),
    (rooms(f"[{'a' * 101}]"), f"workspaces[0].rooms[0]: {ROOM_ID}, found '{'a' * 59}…'"),
    (rooms("[{id: [a]}]"), f"workspaces[0].rooms[0].id: {ROOM_ID}, found a list"),
    (rooms("[{}]"), "workspaces[0].rooms[0]: expected id or match, found neither"),
    (rooms("[{name: a}]"), "workspaces[0].rooms[0]: expected id or match, found neither"),
    (rooms("[{id: a, match: b}]"), "workspaces[0].rooms[0]: expected id or match, found id and match"),
    (rooms("[{match: a, name: b}]"), "workspaces[0].rooms[0].name: expected group beside match, found name"),
    (rooms("[{id: a, group: b}]"), "workspaces[0].rooms[0].group: expected name beside id, found group"),
    (rooms("[{id: a, name: _other}]"), f"workspaces[0].rooms[0].name: {NAME}, found '_other' (this name is reserved)"),
    (rooms("[{id: a, name: ''}]"), f"workspaces[0].rooms[0].name: {NAME}, found ''"),
    (rooms("[a, b, {id: a}]"), "workspaces[0].rooms[2]: expected an id of its own, workspaces[0].rooms[0] has the same"),
    (
        rooms("[{id: a, name: c}, {id: b, name: c}]"),
        "workspaces[0].rooms[1]: expected a name of its own, workspaces[0].rooms[0] has the same",
    ),
    (rooms("[{match: a}, {match: a}]"), "workspaces[0].rooms[1]: expected a pattern of its own, workspaces[0].rooms[0] has the same"),
    (rooms("[{match: ''}]"), f"{PATTERN}, found ''"),
    (rooms("[{match: [a]}]"), f"{PATTERN}, found a list"),
    (rooms("[{match: 'a('}]"), f"{PATTERN}, found 'a(' (missing ), unterminated subpattern)"),
    (rooms(f"[{{match: 'a{{{'9' * 20}}}'}}]"), f"{PATTERN}, found 'a{{{'9' * 20}}}' (the repetition number is too large)"),
    (rooms("[{match: a, group: ''}]"), f"{TEMPLATE}, found ''"),
    (rooms("[{match: a, group: _other}]"), f"{TEMPLATE}, found '_other' (this name is reserved)"),
    (rooms("[{match: a, group: 'b${'}]"), f"{TEMPLATE}, found 'b${{' (a ${{ must name a group of the pattern, $${{ stands for itself)"),
    (
        rooms("[{match: '(?P<x>a)', group: '${y}'}]"),
        "workspaces[0].rooms[0].group: expected a named group of match, which has no (?P<y>...)",
    ),
]

SETTINGS = [
    (WORKSPACE + "poll: {interval: 30}", f"{INTERVAL}, found '30' (a unit is missing, as in 30s)"),
    (WORKSPACE + "poll: {interval: 0s}", f"{INTERVAL}, found '0s'"),
    (WORKSPACE + "poll: {interval: 999ms}", f"{INTERVAL}, found '999ms'"),
    (WORKSPACE + "poll: {interval: 1h1s}", f"{INTERVAL}, found '1h1s'"),
    (WORKSPACE + "poll: {interval: -5s}", f"{INTERVAL}, found '-5s' ({SYNTAX})"),
    (WORKSPACE + "poll: {interval: 5s5m}", f"{INTERVAL}, found '5s5m' ({SYNTAX})"),
    (WORKSPACE + "poll: {interval: 1m1m}", f"{INTERVAL}, found '1m1m' ({SYNTAX})"),
    (WORKSPACE + "poll: {interval: 1.5m}", f"{INTERVAL}, found '1.5m' ({SYNTAX})"),
    (WORKSPACE + "poll: {interval: 9999999999999999d}", f"{INTERVAL}, found '9999999999999999d' ({SYNTAX})"),
    (WORKSPACE + "poll: {interval: }", f"{INTERVAL}, found nothing"),
    (WORKSPACE + "poll: {interval: [30s]}", f"{INTERVAL}, found a list"),
    (WORKSPACE + "poll: {since: never}", f"{SINCE}, found 'never'"),
    (WORKSPACE + "poll: {since: 0s}", f"{SINCE}, found '0s'"),
    (WORKSPACE + "poll: {since: 3651d}", f"{SINCE}, found '3651d'"),
    (WORKSPACE + "poll: {since: 2026-02-01}", f"{SINCE}, found '2026-02-01'"),
    (WORKSPACE + "poll: {since: 2026-02-01T00:00:00}", f"{SINCE}, found '2026-02-01T00:00:00'"),
    (WORKSPACE + "poll: {since: 2026-02-30T00:00:00Z}", f"{SINCE}, found '2026-02-30T00:00:00Z' (day is out of range for month)"),
    (WORKSPACE + "poll: {since: 0001-01-01T00:00:00+05:00}", f"{SINCE}, found '0001-01-01T00:00:00+05:00' (date value out of range)"),
    (WORKSPACE + "api: {timeout: 0s}", "api.timeout: expected a duration from 1ms to 10m, found '0s'"),
    (WORKSPACE + "api: {page_size: 9}", f"{PAGE_SIZE}, found '9'"),
    (WORKSPACE + "api: {page_size: 101}", f"{PAGE_SIZE}, found '101'"),
    (WORKSPACE + "api: {page_size: 50.0}", f"{PAGE_SIZE}, found '50.0'"),
    (WORKSPACE + "api: {page_size: 0x20}", f"{PAGE_SIZE}, found '0x20'"),
    (WORKSPACE + "api: {page_size: true}", f"{PAGE_SIZE}, found 'true'"),
    (WORKSPACE + "api: {page_size: '50'}", f"{PAGE_SIZE}, found '50' (write it without quotes)"),
    (WORKSPACE + "api: {max_requests_per_second: 0}", f"{RATE}, found '0'"),
    (WORKSPACE + "api: {max_requests_per_second: .nan}", f"{RATE}, found '.nan'"),
    (WORKSPACE + "api: {max_requests_per_second: .inf}", f"{RATE}, found '.inf'"),
    (WORKSPACE + "api: {max_requests_per_second: 1e999}", f"{RATE}, found '1e999'"),
    (WORKSPACE + "api: {max_retries: -1}", "api.max_retries: expected a whole number from 0 to 20, found '-1'"),
    (WORKSPACE + "api: {allow_plain_http: 1}", "api.allow_plain_http: expected true or false, found '1'"),
    (WORKSPACE + "api: {base_url: example.com}", URL),
    (WORKSPACE + "api: {base_url: ftp://example.com}", URL),
    (WORKSPACE + "api: {base_url: https://}", URL),
    (WORKSPACE + "api: {base_url: 'https://a b'}", URL),
    (WORKSPACE + "api: {base_url: 'https://a:99999'}", URL),
    (WORKSPACE + "api: {base_url: 'https://[::1'}", URL),
    (WORKSPACE + f"api: {{base_url: 'https://me:{CANARY}@a'}}", f"{URL} (leave out user name and password)"),
    (WORKSPACE + f"api: {{base_url: 'https://a?token={CANARY}'}}", f"{URL} (leave out query and fragment)"),
    (WORKSPACE + "api: {base_url: http://api.100ms.live/v2}", PLAIN_HTTP),
    (WORKSPACE + "api: {base_url: http://127.0.0.1.example.com}", PLAIN_HTTP),
    (WORKSPACE + "storage: {path: ''}", "storage.path: expected the path of a file, found ''"),
    (WORKSPACE + "storage: {path: state/}", "storage.path: expected the path of a file, found 'state/'"),
    (WORKSPACE + "storage: {path: ':memory:'}", "storage.path: expected the path of a file, found ':memory:'"),
    (WORKSPACE + "web: {listen_address: 10100}", f"{LISTEN}, found '10100' {PORT}"),
    (WORKSPACE + "web: {listen_address: ':65536'}", f"{LISTEN}, found ':65536' {PORT}"),
    (WORKSPACE + "web: {listen_address: []}", f"{LISTEN}, or a list of these, found an empty one"),
    (WORKSPACE + "web: {listen_address: {a: b}}", f"{LISTEN}, or a list of these, found a mapping"),
    (
        WORKSPACE + "web: {listen_address: [':1', '1']}",
        f"web.listen_address[1]: {ADDRESS}, found '1' {PORT}",
    ),
    (
        WORKSPACE + "web: {listen_address: [':1', ':1']}",
        f"web.listen_address[1]: {SAME_ADDRESS}",
    ),
    (
        WORKSPACE + "web: {telemetry_path: /m}",
        f"web.telemetry_path: unknown key, expected {WEB_KEYS}",
    ),
    (WORKSPACE + "collect: {recordings: 1}", "collect.recordings: expected true or false, found '1'"),
    (WORKSPACE + "collect: {interval: 2h}", "collect.interval: expected a duration from 1s to 1h, found '2h'"),
    (WORKSPACE + "bots: {roles: recorder}", "bots.roles: expected a list of names, found a single value"),
    (WORKSPACE + "bots: {roles: ['']}", f"bots.roles[0]: {NAME}, found ''"),
    (WORKSPACE + "storage: {path: a, url: postgresql://b/c}", "storage.path: expected path or url, found both"),
    (WORKSPACE + "storage: {path: a, url_file: b}", "storage.path: expected path or url, found both"),
    (WORKSPACE + "storage: {url: postgresql://b/c, url_file: b}", "storage.url_file: expected url or url_file, found both"),
    (WORKSPACE + f"storage: {{url: 'mysql://me:{CANARY}@b/c'}}", "storage.url: expected a postgresql:// URL"),
    (WORKSPACE + "webhooks: {}", "webhooks: expected headers or signature_secret, found neither"),
    (WORKSPACE + "webhooks: {listen_address: ':1'}", "webhooks: expected headers or signature_secret, found neither"),
    (WORKSPACE + "webhooks: {headers: {}}", HEADERS),
    (WORKSPACE + f"webhooks: {{headers: {{'{CANARY} x': a}}}}", HEADERS),
    (WORKSPACE + "webhooks: {headers: {A: b, a: c}}", HEADERS),
    (WORKSPACE + "webhooks: {headers: {a: ''}}", "webhooks.headers.a: expected one line of printable ASCII characters"),
    (WORKSPACE + "webhooks: {headers: {a: b}, headers_file: c}", "webhooks.headers_file: expected headers or headers_file, found both"),
    (
        WORKSPACE + "webhooks: {signature_secret: }",
        "webhooks.signature_secret: expected one line of printable ASCII characters, found nothing",
    ),
    (WORKSPACE + "web: {listen_address: '::1:80'}", f"{LISTEN}, found '::1:80'"),
    (WORKSPACE + "web: {listen_address: 22:22}", f"{LISTEN}, found '22:22'"),
    (WORKSPACE + "web: {listen_address: '[1.2.3.4]:80'}", f"{LISTEN}, found '[1.2.3.4]:80'"),
    (WORKSPACE + "web: {enable_lifecycle: 'true'}", "web.enable_lifecycle: expected true or false, found 'true' (write it without quotes)"),
    (WORKSPACE + "limits: {max_rooms: -1}", "limits.max_rooms: expected a whole number from 0 to 1000000, found '-1'"),
    (WORKSPACE + "limits: {room_idle_expiry: 0s}", "limits.room_idle_expiry: expected a duration from 1s to 3650d, found '0s'"),
    (WORKSPACE + "log: {level: trace}", "log.level: expected debug, info, warn or error, found 'trace'"),
    (WORKSPACE + "log: {format: xml}", "log.format: expected logfmt or json, found 'xml'"),
]


@pytest.mark.parametrize(("text", "message"), NOT_YAML + KEYS + SUBSTITUTIONS + WORKSPACES + ROOM_LISTS + SETTINGS)
def test_a_bad_configuration_is_refused_in_one_line_without_secrets(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text, ENVIRON, "config.yaml")
    assert str(refused.value) == f"config.yaml: {message}"
    assert CANARY not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_aliases_that_multiply_are_refused_before_they_do() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"{name}: &{name} [{', '.join([f'*{previous}'] * 9)}]\n" for previous, name in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(ConfigError, match=r"^config.yaml: line 6, column \d+: more than 500000 values, aliases included$"):
        parse(bomb, {}, "config.yaml")
