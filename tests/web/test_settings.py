"""The web configuration: valid settings, and the exact message for each invalid one."""

from __future__ import annotations

import re
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config.strict_yaml import ConfigError
from exporter.web.settings import CIPHER_SUITES, CURVES, RateLimit, TlsSettings, WebFile, load, parse, tls_context
from tests.certificates import make_certificate
from tests.programs import require

HASH = "$2b$04$U1CXPyEgeE8F2cpLgJ8LQOuBoLYSQZlHAOqzhWEZpLtQXCzEvBZda"
TLS = "cert_file: c.pem, key_file: k.pem"


def read(text: str) -> WebFile:
    return parse(text, Path("/etc/exporter"), "web.yml")


def test_everything_at_once() -> None:
    text = f"""
tls_server_config:
  cert_file: c.pem
  key_file: /keys/k.pem
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [prometheus.example, 10.0.0.1]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256]
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    X-XSS-Protection: 0
basic_auth_users:
  prometheus: {HASH}
  7: {HASH}
rate_limit:
  interval: 1m0.5s
  burst: 20
"""
    assert read(text) == WebFile(
        tls=TlsSettings(
            cert_file=Path("/etc/exporter/c.pem"),
            key_file=Path("/keys/k.pem"),
            client_auth_type=ssl.CERT_REQUIRED,
            client_ca_file=Path("/etc/exporter/ca.pem"),
            client_allowed_sans=frozenset({"prometheus.example", "10.0.0.1"}),
            min_version=ssl.TLSVersion.TLSv1_2,
            max_version=ssl.TLSVersion.TLSv1_3,
            cipher_suites=("ECDHE-RSA-AES128-GCM-SHA256",),
            prefer_server_cipher_suites=False,
            curve_preferences="prime256v1",
        ),
        users={"prometheus": HASH, "7": HASH},
        headers={"X-Frame-Options": "deny", "X-XSS-Protection": "0"},
        rate_limit=RateLimit(interval=60.5, burst=20),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", WebFile()),
        ("tls_server_config:\nhttp_server_config: {}\nbasic_auth_users: ~\nrate_limit:\n", WebFile()),
        ("http_server_config: {http2: true}", WebFile()),
        ("http_server_config: {headers: {Strict-Transport-Security: ''}}", WebFile()),
        ("rate_limit: {interval: 0}", WebFile()),
        ("rate_limit: {interval: 0s, burst: 5}", WebFile()),
        ("rate_limit: {interval: 250us, burst: 5}", WebFile(rate_limit=RateLimit(0.00025, 5))),
    ],
)
def test_what_says_nothing_in_particular_leaves_the_defaults(text: str, expected: WebFile) -> None:
    assert read(text) == expected


def test_suites_of_tls_1_3_alone_leave_only_tls_1_3() -> None:
    tls = read(f"tls_server_config: {{{TLS}, cipher_suites: [TLS_AES_128_GCM_SHA256]}}").tls
    assert tls is not None
    assert (tls.min_version, tls.cipher_suites) == (ssl.TLSVersion.TLSv1_3, ())


REFUSED = {
    "": "web.yml: is empty",
    "# nothing": "web.yml: is empty",
    "[]": "web.yml: expected a mapping",
    "tls: {}": "web.yml: tls: unknown key, expected tls_server_config, http_server_config, basic_auth_users or rate_limit",
    "tls_config: {}": "web.yml: tls_config: unknown key, did you mean tls_server_config?",
    "{}\n---\n{}": "web.yml: line 2, column 1: expected one document, found a second",
    "rate_limit: {interval: 1s, interval: 2s}": "web.yml: rate_limit.interval: expected each key once, found it on lines 1 and 1",
    "tls_server_config: 7": "web.yml: tls_server_config: expected a mapping",
    "tls_server_config: {cert_file: a}": "web.yml: tls_server_config.key_file: expected a file, as TLS needs both cert_file and key_file",
    "tls_server_config: {min_version: TLS13}": (
        "web.yml: tls_server_config.cert_file: expected a file, as TLS needs both cert_file and key_file"
    ),
    "tls_server_config: {cert: PEM, key: PEM}": "web.yml: tls_server_config.cert: is not supported, give cert_file",
    f"tls_server_config: {{{TLS}, client_ca: PEM}}": "web.yml: tls_server_config.client_ca: is not supported, give client_ca_file",
    "tls_server_config: {cert_file: [a], key_file: b}": "web.yml: tls_server_config.cert_file: expected the path of a file",
    "tls_server_config: {cert_file: '', key_file: b}": "web.yml: tls_server_config.cert_file: expected the path of a file",
    f"tls_server_config: {{{TLS}, min_version: TLS11}}": "web.yml: tls_server_config.min_version: expected TLS12 or TLS13",
    f"tls_server_config: {{{TLS}, min_version: TLS13, max_version: TLS12}}": (
        "web.yml: tls_server_config: expected min_version and max_version, and the cipher_suites, to leave a version of TLS"
    ),
    f"tls_server_config: {{{TLS}, max_version: TLS12, cipher_suites: [TLS_AES_128_GCM_SHA256]}}": (
        "web.yml: tls_server_config: expected min_version and max_version, and the cipher_suites, to leave a version of TLS"
    ),
    f"tls_server_config: {{{TLS}, client_auth_type: RequireAnyClientCert, client_ca_file: a}}": (
        "web.yml: tls_server_config.client_auth_type: certificates that nobody verifies are not supported, use RequireAndVerifyClientCert"
    ),
    f"tls_server_config: {{{TLS}, client_auth_type: RequestClientCert}}": (
        "web.yml: tls_server_config.client_auth_type: certificates that nobody verifies are not supported, use RequireAndVerifyClientCert"
    ),
    f"tls_server_config: {{{TLS}, client_auth_type: Sometimes}}": (
        "web.yml: tls_server_config.client_auth_type: expected NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert"
    ),
    f"tls_server_config: {{{TLS}, client_auth_type: RequireAndVerifyClientCert}}": (
        "web.yml: tls_server_config.client_ca_file: expected a file, as client_auth_type needs authorities to verify clients against"
    ),
    f"tls_server_config: {{{TLS}, client_ca_file: a}}": (
        "web.yml: tls_server_config.client_ca_file: expected client_auth_type beside it, RequireAndVerifyClientCert for example"
    ),
    f"tls_server_config: {{{TLS}, client_allowed_sans: [a]}}": (
        "web.yml: tls_server_config.client_allowed_sans: expected client_auth_type to be RequireAndVerifyClientCert"
    ),
    f"tls_server_config: {{{TLS}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: a, client_allowed_sans: []}}": (
        "web.yml: tls_server_config.client_allowed_sans: expected a list of one or more names, found an empty one"
    ),
    f"tls_server_config: {{{TLS}, cipher_suites: []}}": (
        "web.yml: tls_server_config.cipher_suites: expected a list of one or more cipher suites, found an empty one"
    ),
    f"tls_server_config: {{{TLS}, curve_preferences: [X25519, CurveP256]}}": (
        "web.yml: tls_server_config.curve_preferences: expected exactly one curve"
    ),
    f"tls_server_config: {{{TLS}, curve_preferences: [X448]}}": (
        "web.yml: tls_server_config.curve_preferences[0]: expected CurveP256, CurveP384, CurveP521 or X25519"
    ),
    f"tls_server_config: {{{TLS}, prefer_server_cipher_suites: 1}}": (
        "web.yml: tls_server_config.prefer_server_cipher_suites: expected true or false"
    ),
    "http_server_config: {http2: 'true'}": "web.yml: http_server_config.http2: expected true or false",
    "http_server_config: {headers: {Server: a}}": (
        "web.yml: http_server_config.headers.Server: unknown key, expected Content-Security-Policy, Strict-Transport-Security, "
        "X-Content-Type-Options, X-Frame-Options or X-XSS-Protection"
    ),
    "http_server_config: {headers: {X-Frame-Options: maybe}}": (
        "web.yml: http_server_config.headers.X-Frame-Options: expected deny or sameorigin"
    ),
    'http_server_config: {headers: {X-XSS-Protection: "a\\r\\nb: c"}}': (
        "web.yml: http_server_config.headers.X-XSS-Protection: expected printable ASCII in one line"
    ),
    "basic_auth_users: [a]": "web.yml: basic_auth_users: expected a mapping of user names to bcrypt hashes",
    "basic_auth_users: {alice: hunter2}": "web.yml: basic_auth_users: line 1: expected a bcrypt hash, as htpasswd -nB makes it",
    "basic_auth_users: {alice: [a]}": "web.yml: basic_auth_users: line 1: expected a bcrypt hash, as htpasswd -nB makes it",
    f"basic_auth_users: {{alice: {HASH}, alice: {HASH}}}": "web.yml: basic_auth_users: line 1: this user is given twice",
    f"basic_auth_users: {{'a:b': {HASH}}}": "web.yml: basic_auth_users: line 1: expected the name of a user, without a colon",
    f"basic_auth_users: {{alice: {HASH.replace('$04$', '$31$')}}}": (
        "web.yml: basic_auth_users: line 1: expected a bcrypt cost from 4 to 16"
    ),
    "rate_limit: {burst: 5}": "web.yml: rate_limit.interval: expected a duration such as 100ms or 1m30s, or 0 for no limit",
    "rate_limit: {interval: 1s}": "web.yml: rate_limit.burst: expected at least 1, as no request would be answered otherwise",
    "rate_limit: {interval: 5, burst: 1}": "web.yml: rate_limit.interval: expected a duration such as 100ms or 1m30s, or 0 for no limit",
    "rate_limit: {interval: -1s, burst: 1}": "web.yml: rate_limit.interval: expected a duration such as 100ms or 1m30s, or 0 for no limit",
    "rate_limit: {interval: 1s, burst: 1.5}": "web.yml: rate_limit.burst: expected a whole number from 0 to 1000000",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_an_invalid_setting_is_refused_with_its_place_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    # The value that was found follows, in the words that the whole configuration uses.
    assert re.fullmatch(re.escape(message) + "(, found .*)?", str(caught.value))


@given(st.text(max_size=200) | st.sampled_from(sorted(REFUSED)).flatmap(lambda text: st.text(max_size=5).map(lambda junk: text + junk)))
@settings(max_examples=300, deadline=None)
def test_no_text_raises_anything_else(text: str) -> None:
    with suppress(ConfigError):
        assert isinstance(read(text), WebFile)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "expected UTF-8 text, found another byte at position 0"),
        (b"#" * 2_000_000, "expected a file of at most 1024 KiB"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "web.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {message}"


# --- certificates ---


def choosable(curve: str) -> bool:
    """Whether this Python can choose a curve. Early releases of 3.11 cannot choose X25519."""
    with suppress(OSError, ValueError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve(curve)
        return True
    return False


def test_every_setting_is_one_that_openssl_can_honour(tmp_path: Path) -> None:
    make_certificate(tmp_path, "c")
    for suite in CIPHER_SUITES.values():
        context = tls_context(TlsSettings(tmp_path / "c.pem", tmp_path / "c.key", cipher_suites=(suite,)))
        assert suite in {cipher["name"] for cipher in context.get_ciphers()}
    for curve in filter(choosable, CURVES.values()):
        tls_context(TlsSettings(tmp_path / "c.pem", tmp_path / "c.key", curve_preferences=curve, prefer_server_cipher_suites=False))


def test_a_curve_that_python_cannot_choose_is_refused(tmp_path: Path) -> None:
    make_certificate(tmp_path, "c")
    for curve in ("unheard-of", *(curve for curve in CURVES.values() if not choosable(curve))):
        with pytest.raises(ConfigError, match=f"curve_preferences: this version of Python cannot choose {curve}"):
            tls_context(TlsSettings(tmp_path / "c.pem", tmp_path / "c.key", curve_preferences=curve))


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    make_certificate(tmp_path, "c")
    make_certificate(tmp_path, "other")
    make_certificate(tmp_path, "locked", password="secret")
    (tmp_path / "junk.pem").write_text("junk")
    for cert, key in (("c", "other"), ("junk", "c"), ("missing", "c"), ("locked", "locked")):
        with pytest.raises(ConfigError, match=f"{cert}.pem with .*{key}.key: expected a certificate and its private key"):
            tls_context(TlsSettings(tmp_path / f"{cert}.pem", tmp_path / f"{key}.key"))
    with pytest.raises(ConfigError, match=r"junk.pem: expected certificates of authorities"):
        tls_context(TlsSettings(tmp_path / "c.pem", tmp_path / "c.key", client_ca_file=tmp_path / "junk.pem"))


# --- promtool ---

ACCEPTED = [
    "{}",
    "http_server_config: {http2: yes}",
    "http_server_config: {headers: {X-XSS-Protection: 0, X-Frame-Options: sameorigin, Content-Security-Policy: ''}}",
    "rate_limit: {interval: 1h15m30.5s, burst: 3}",
    "rate_limit: {interval: .5us, burst: 3}",
    "rate_limit: {interval: 0}",
    f"basic_auth_users: {{a: {HASH}, 1: {HASH.replace('2b', '2y')}, yes: {HASH.replace('2b', '2a')}}}",
    "tls_server_config: {cert_file: c.pem, key_file: c.key}",
    "tls_server_config: {cert_file: c.pem, key_file: c.key, min_version: TLS12, max_version: TLS12, prefer_server_cipher_suites: off}",
    "tls_server_config: {cert_file: c.pem, key_file: c.key, client_auth_type: VerifyClientCertIfGiven, client_ca_file: c.pem}",
    "tls_server_config: {cert_file: c.pem, key_file: c.key, client_auth_type: RequireAndVerifyClientCert, client_ca_file: c.pem,"
    " client_allowed_sans: [a, b]}",
    "tls_server_config: {cert_file: c.pem, key_file: c.key, cipher_suites: ["
    + ", ".join([*CIPHER_SUITES, "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
    + "]}",
    *(f"tls_server_config: {{cert_file: c.pem, key_file: c.key, curve_preferences: [{curve}]}}" for curve in CURVES),
]


def test_promtool_accepts_every_accepted_configuration(tmp_path: Path) -> None:
    promtool = require("promtool")
    make_certificate(tmp_path, "c")
    for number, text in enumerate(ACCEPTED):
        path = tmp_path / f"{number}.yml"
        path.write_text(text)
        config = load(path)
        if config.tls is not None and (config.tls.curve_preferences is None or choosable(config.tls.curve_preferences)):
            tls_context(config.tls)
    files = [str(tmp_path / f"{number}.yml") for number in range(len(ACCEPTED))]
    result = subprocess.run([promtool, "check", "web-config", *files], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("SUCCESS") == len(ACCEPTED)
