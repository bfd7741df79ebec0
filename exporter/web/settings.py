"""The web configuration: TLS, passwords, headers and the rate limit of the HTTP face, in the file format of Prometheus's exporter toolkit.

Every file that is accepted here is also accepted by `promtool check web-config`.  Some files that promtool accepts are refused
here, with a message: those with certificates and keys in the file itself, client certificates that are requested but not
verified, TLS before 1.2, or more than one curve.  The server speaks only HTTP/1.1, whatever `http2` says: that key only allows
HTTP/2.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import yaml

from exporter.config.readers import boolean, choice, integer, words
from exporter.config.strict_yaml import ConfigError, read
from exporter.config.value import Reader, T, Value, read_file, required, section, setting

MAX_FILE_BYTES = 1024 * 1024

TLS_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
UNVERIFIED_CLIENT_AUTH = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}

# Go's names of the suites that it considers secure, with OpenSSL's names.
CIPHER_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
}
# Neither Go nor OpenSSL can select among the suites of TLS 1.3: naming one only permits TLS 1.3.
TLS13_SUITES = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})

# The headers that the toolkit permits, and their permitted values if those are limited.
HEADERS: Mapping[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}

# Above this cost one check takes several seconds, longer than a scrape may take.
MAX_BCRYPT_COST = 16
BCRYPT_HASH = re.compile(r"\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{53}")

GO_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
GO_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def _path(value: Value) -> Path:
    expected = "the path of a file"
    name = value.text(expected)
    if not name or "\0" in name:
        raise value.unexpected(expected)
    return Path(name)


def _path_for_tls(value: Value) -> Path:
    if value.is_null:
        raise value.error("expected a file, as TLS needs both cert_file and key_file")
    return _path(value)


def _client_auth(value: Value) -> ssl.VerifyMode:
    if value.text("the kind of client authentication") in UNVERIFIED_CLIENT_AUTH:
        raise value.error("certificates that nobody verifies are not supported, use RequireAndVerifyClientCert")
    return choice(CLIENT_AUTH)(value)


def _names(value: Value) -> frozenset[str]:
    return frozenset(item.text("a name") for item in value.items("a list of one or more names", some=True))


def _ciphers(value: Value) -> tuple[str, ...]:
    suite = words(*CIPHER_SUITES, *sorted(TLS13_SUITES))
    names = [suite(item) for item in value.items("a list of one or more cipher suites", some=True)]
    return tuple(CIPHER_SUITES[name] for name in names if name not in TLS13_SUITES)


def _curve(value: Value) -> str:
    curves = value.items("a list of one curve")
    if len(curves) != 1:
        raise value.error("expected exactly one curve")
    return choice(CURVES)(curves[0])


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The keys of `tls_server_config`."""

    cert_file: Path = required(_path_for_tls)
    key_file: Path = required(_path_for_tls)
    client_auth_type: ssl.VerifyMode = setting(ssl.CERT_NONE, _client_auth)
    client_ca_file: Path | None = setting(None, _path)
    client_allowed_sans: frozenset[str] = setting(frozenset(), _names)
    """A client's certificate must have one of these names; empty means any name."""
    min_version: ssl.TLSVersion = setting(ssl.TLSVersion.TLSv1_2, choice(TLS_VERSIONS))
    max_version: ssl.TLSVersion = setting(ssl.TLSVersion.TLSv1_3, choice(TLS_VERSIONS))
    cipher_suites: tuple[str, ...] | None = setting(None, _ciphers)
    """For TLS 1.2, as OpenSSL names them; `None`: OpenSSL's own choice."""
    prefer_server_cipher_suites: bool = setting(True, boolean)
    curve_preferences: str | None = setting(None, _curve)
    """As OpenSSL names it; `None`: OpenSSL's own choice."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that TLS needs."""
        return (self.cert_file, self.key_file, *((self.client_ca_file,) if self.client_ca_file else ()))

    def within(self, folder: Path) -> TlsSettings:
        """The same, with paths relative to this folder."""
        authorities = None if self.client_ca_file is None else folder / self.client_ca_file
        return replace(self, cert_file=folder / self.cert_file, key_file=folder / self.key_file, client_ca_file=authorities)


_tls_keys = section(TlsSettings)


def _tls(value: Value) -> TlsSettings:
    for key in ("cert", "key", "client_ca"):
        if isinstance(value.node, yaml.MappingNode) and any(found.value == key for found, _ in value.node.value):
            raise value.member(key).error(f"is not supported, give {key}_file")
    found = _tls_keys(value)
    auth = found.client_auth_type
    if auth is ssl.CERT_NONE and found.client_ca_file is not None:
        raise value.member("client_ca_file").error("expected client_auth_type beside it, RequireAndVerifyClientCert for example")
    if auth is not ssl.CERT_NONE and found.client_ca_file is None:
        raise value.member("client_ca_file").error("expected a file, as client_auth_type needs authorities to verify clients against")
    if auth is not ssl.CERT_REQUIRED and found.client_allowed_sans:
        raise value.member("client_allowed_sans").error("expected client_auth_type to be RequireAndVerifyClientCert")
    if found.cipher_suites == ():  # none but those of TLS 1.3
        found = replace(found, min_version=ssl.TLSVersion.TLSv1_3)
    if found.min_version > found.max_version:
        raise value.error("expected min_version and max_version, and the cipher_suites, to leave a version of TLS")
    return found


def _users(value: Value) -> Mapping[str, str]:
    """The users; messages give lines instead of names and hashes, because they end up in logs."""
    users: dict[str, str] = {}
    if not isinstance(value.node, yaml.MappingNode):
        raise value.unexpected("a mapping of user names to bcrypt hashes")
    for name, node in value.node.value:
        line = name.start_mark.line + 1
        if name.value in users:
            raise value.error(f"line {line}: this user is given twice")
        if not name.value or ":" in name.value:
            raise value.error(f"line {line}: expected the name of a user, without a colon")
        hashed = BCRYPT_HASH.fullmatch(node.value) if isinstance(node, yaml.ScalarNode) else None
        if hashed is None:
            raise value.error(f"line {line}: expected a bcrypt hash, as htpasswd -nB makes it")
        if not 4 <= int(hashed[1]) <= MAX_BCRYPT_COST:
            raise value.error(f"line {line}: expected a bcrypt cost from 4 to {MAX_BCRYPT_COST}")
        users[name.value] = hashed[0]
    return MappingProxyType(users)


def _headers(value: Value) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for name, member in {} if value.is_empty else value.mapping(HEADERS).items():
        text = member.text("the header's value")
        if HEADERS[name] and text not in HEADERS[name]:
            raise member.error(f"expected {' or '.join(HEADERS[name])}")
        if not re.fullmatch(r"([!-~]([ -~]*[!-~])?)?", text):
            raise member.error("expected printable ASCII in one line")
        if text:  # blank leaves the header as it is
            headers[name] = text
    return MappingProxyType(headers)


@dataclass(frozen=True, slots=True)
class _HttpServer:
    """The keys of `http_server_config`."""

    http2: bool = setting(True, boolean)
    headers: Mapping[str, str] | None = setting(None, _headers)


def _go_duration(value: Value) -> float:
    expected = "a duration such as 100ms or 1m30s, or 0 for no limit"
    text = value.text(expected)
    if text == "0":
        return 0.0
    parts = list(GO_DURATION_PART.finditer(text))
    seconds = sum(float(part[1]) * GO_DURATION_UNITS[part[2]] for part in parts)
    if not parts or "".join(part[0] for part in parts) != text or seconds > 86400:
        raise value.unexpected(expected)
    return seconds


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One request every `interval` seconds, and `burst` of them at once."""

    interval: float = required(_go_duration)
    burst: int = setting(0, integer(0, 1_000_000))


_rate_limit_keys = section(RateLimit)


def _rate_limit(value: Value) -> RateLimit | None:
    found = _rate_limit_keys(value)
    if found.interval == 0:
        return None
    if found.burst == 0:
        raise value.member("burst").error("expected at least 1, as no request would be answered otherwise")
    return found


def _unless_empty(default: T, read: Reader[T]) -> Reader[T]:
    """Reads a section that may be empty."""
    return lambda value: default if value.is_empty else read(value)


@dataclass(frozen=True, slots=True)
class _Sections:
    """The keys of the file."""

    tls_server_config: TlsSettings | None = setting(None, _unless_empty(None, _tls))
    http_server_config: _HttpServer = setting(_HttpServer(), _unless_empty(_HttpServer(), section(_HttpServer)))
    basic_auth_users: Mapping[str, str] | None = setting(None, _unless_empty(None, _users))
    rate_limit: RateLimit | None = setting(None, _unless_empty(None, _rate_limit))


_sections = section(_Sections)


@dataclass(frozen=True, slots=True)
class WebFile:
    """A web configuration; `users` maps names to bcrypt hashes."""

    tls: TlsSettings | None = None
    users: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rate_limit: RateLimit | None = None


def load(path: Path) -> WebFile:
    """The configuration in a file; paths in it are relative to its folder.  Raises `ConfigError`."""
    return parse(read_file(path, MAX_FILE_BYTES), path.parent, str(path))


def parse(text: str, folder: Path, source: str) -> WebFile:
    """The configuration in a text: paths in it are relative to `folder`, `source` names it in messages.  Raises `ConfigError`.

    An empty text is refused: a file that is just being written would switch off every check.
    """
    given = _sections(Value(read(text, source), source))
    tls = given.tls_server_config
    return WebFile(
        tls=None if tls is None else tls.within(folder),
        users=given.basic_auth_users or {},
        headers=given.http_server_config.headers or {},
        rate_limit=given.rate_limit,
    )


def tls_context(settings: TlsSettings) -> ssl.SSLContext:
    """The context for these settings, its certificates read from their files.  Raises `ConfigError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = settings.min_version
    context.maximum_version = settings.max_version
    context.verify_mode = settings.client_auth_type
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    if settings.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if settings.cipher_suites:
        context.set_ciphers(":".join(settings.cipher_suites))
    if settings.curve_preferences is not None:
        try:
            context.set_ecdh_curve(settings.curve_preferences)
        except (OSError, ValueError):  # early releases of Python 3.11 cannot choose X25519
            message = f"curve_preferences: this version of Python cannot choose {settings.curve_preferences}; left out, OpenSSL chooses"
            raise ConfigError(message) from None
    try:
        # An encrypted key would ask for its password on the terminal; the empty one is refused at once.
        context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    except (OSError, ValueError) as error:
        raise _unusable(f"{settings.cert_file} with {settings.key_file}", "a certificate and its private key, in PEM", error) from None
    if settings.client_ca_file is not None:
        try:
            context.load_verify_locations(settings.client_ca_file)
        except (OSError, ValueError) as error:
            raise _unusable(str(settings.client_ca_file), "certificates of authorities, in PEM", error) from None
    return context


def _unusable(files: str, expected: str, error: OSError | ValueError) -> ConfigError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    return ConfigError(f"{files}: expected {expected} ({reason})")
