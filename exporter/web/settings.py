"""The web configuration: TLS, passwords, headers and the rate limit of the HTTP face, in the file format of Prometheus's exporter toolkit.

A file that is accepted here is accepted by `promtool check web-config`.  The other way round there are exceptions, each refused
with a message that says so: certificates and keys written into the file itself, client certificates that are asked for but not
verified, TLS before 1.2, more than one curve.  HTTP/1.1 is all that is spoken, whatever `http2` says: it only allows HTTP/2.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import yaml

from exporter.config.readers import boolean, choice, integer
from exporter.config.strict_yaml import ConfigError, read
from exporter.config.value import Value, read_file

MAX_FILE_BYTES = 1024 * 1024

TLS_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
UNVERIFIED_CLIENT_AUTH = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}

# Go's names for the suites that it holds to be secure, and OpenSSL's.
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
# Neither Go nor OpenSSL lets one choose among TLS 1.3's own suites: naming them permits TLS 1.3, no more.
TLS13_SUITES = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})

# The headers that the toolkit permits, and the values it permits for them, where it is particular.
HEADERS: Mapping[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}

# Above this cost one check takes several seconds, longer than a scrape may.
MAX_BCRYPT_COST = 16
BCRYPT_HASH = re.compile(r"\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{53}")

GO_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
GO_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How TLS is spoken."""

    cert_file: Path
    key_file: Path
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    client_ca_file: Path | None = None
    client_allowed_sans: frozenset[str] = frozenset()
    """Names of which a client's certificate must bear one; empty: any will do."""
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] = ()
    """For TLS 1.2, as OpenSSL names them; empty: OpenSSL's own choice."""
    prefer_server_ciphers: bool = True
    curve: str | None = None
    """As OpenSSL names it; None: OpenSSL's own choice."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that TLS needs."""
        return (self.cert_file, self.key_file, *((self.client_ca_file,) if self.client_ca_file else ()))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One request every `interval` seconds, and `burst` of them at once."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebFile:
    """What a web configuration says; `users` maps names to bcrypt hashes."""

    tls: TlsSettings | None = None
    users: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rate_limit: RateLimit | None = None


def load(path: Path) -> WebFile:
    """The configuration in a file; paths in it are relative to its folder.  Raises `ConfigError`."""
    try:
        text = read_file(path, MAX_FILE_BYTES)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    return parse(text, path.parent, str(path))


def parse(text: str, folder: Path, source: str) -> WebFile:
    """The configuration in a text: paths in it are relative to `folder`, `source` names it in messages.  Raises `ConfigError`.

    A text that says nothing at all is refused: read while it is being written, it would open every door.
    """
    sections = Value(read(text, source), source, "").mapping(
        ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"),
    )
    given = {name: value for name, value in sections.items() if not value.is_empty}
    return WebFile(
        tls=_tls(given["tls_server_config"], folder) if "tls_server_config" in given else None,
        users=_users(given["basic_auth_users"]) if "basic_auth_users" in given else {},
        headers=_http(given["http_server_config"]) if "http_server_config" in given else {},
        rate_limit=_rate_limit(given["rate_limit"]) if "rate_limit" in given else None,
    )


def tls_context(settings: TlsSettings) -> ssl.SSLContext:
    """The context for these settings, its certificates read from their files.  Raises `ConfigError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = settings.min_version
    context.maximum_version = settings.max_version
    context.verify_mode = settings.client_auth
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    if settings.prefer_server_ciphers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if settings.ciphers:
        context.set_ciphers(":".join(settings.ciphers))
    if settings.curve is not None:
        try:
            context.set_ecdh_curve(settings.curve)
        except (OSError, ValueError):  # early releases of Python 3.11 cannot choose X25519
            message = f"curve_preferences: this version of Python cannot choose {settings.curve}; left out, OpenSSL chooses"
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


def _tls(section: Value, folder: Path) -> TlsSettings:
    for key in ("cert", "key", "client_ca"):
        if isinstance(section.node, yaml.MappingNode) and any(found.value == key for found, _ in section.node.value):
            raise section.member(key).error(f"is not supported, give {key}_file")
    given = section.mapping(
        (
            "cert_file",
            "key_file",
            "client_auth_type",
            "client_ca_file",
            "client_allowed_sans",
            "min_version",
            "max_version",
            "cipher_suites",
            "prefer_server_cipher_suites",
            "curve_preferences",
        )
    )
    for key in ("cert_file", "key_file"):
        if key not in given:
            raise section.member(key).error("expected a file, as TLS needs both cert_file and key_file")
    auth = _client_auth(given["client_auth_type"]) if "client_auth_type" in given else ssl.CERT_NONE
    if auth is ssl.CERT_NONE and "client_ca_file" in given:
        raise given["client_ca_file"].error("expected client_auth_type beside it, RequireAndVerifyClientCert for example")
    if auth is not ssl.CERT_NONE and "client_ca_file" not in given:
        raise section.member("client_ca_file").error("expected a file, as client_auth_type needs authorities to verify clients against")
    if auth is not ssl.CERT_REQUIRED and "client_allowed_sans" in given:
        raise given["client_allowed_sans"].error("expected client_auth_type to be RequireAndVerifyClientCert")
    version = choice(*TLS_VERSIONS)
    lowest = TLS_VERSIONS[version(given["min_version"])] if "min_version" in given else ssl.TLSVersion.TLSv1_2
    highest = TLS_VERSIONS[version(given["max_version"])] if "max_version" in given else ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] = ()
    if "cipher_suites" in given:
        ciphers = _ciphers(given["cipher_suites"])
        if not ciphers:
            lowest = ssl.TLSVersion.TLSv1_3
    if lowest > highest:
        raise section.error("expected min_version and max_version, and the cipher_suites, to leave a version of TLS")
    return TlsSettings(
        cert_file=_file(given["cert_file"], folder),
        key_file=_file(given["key_file"], folder),
        client_auth=auth,
        client_ca_file=_file(given["client_ca_file"], folder) if "client_ca_file" in given else None,
        client_allowed_sans=_sans(given["client_allowed_sans"]) if "client_allowed_sans" in given else frozenset(),
        min_version=lowest,
        max_version=highest,
        ciphers=ciphers,
        prefer_server_ciphers=boolean(given["prefer_server_cipher_suites"]) if "prefer_server_cipher_suites" in given else True,
        curve=_curve(given["curve_preferences"]) if "curve_preferences" in given else None,
    )


def _file(value: Value, folder: Path) -> Path:
    name = value.text("the path of a file")
    if not name or "\0" in name:
        raise value.unexpected("the path of a file")
    return folder / name


def _client_auth(value: Value) -> ssl.VerifyMode:
    if value.text("the kind of client authentication") in UNVERIFIED_CLIENT_AUTH:
        raise value.error("certificates that nobody verifies are not supported, use RequireAndVerifyClientCert")
    return CLIENT_AUTH[choice(*CLIENT_AUTH)(value)]


def _sans(value: Value) -> frozenset[str]:
    names = frozenset(item.text("a name") for item in value.items("a list of names"))
    if not names:
        raise value.error("expected at least one name")
    return names


def _ciphers(value: Value) -> tuple[str, ...]:
    suite = choice(*CIPHER_SUITES, *sorted(TLS13_SUITES))
    names = [suite(item) for item in value.items("a list of cipher suites")]
    if not names:
        raise value.error("expected at least one cipher suite")
    return tuple(CIPHER_SUITES[name] for name in names if name not in TLS13_SUITES)


def _curve(value: Value) -> str:
    curves = value.items("a list of one curve")
    if len(curves) != 1:
        raise value.error("expected exactly one curve")
    return CURVES[choice(*CURVES)(curves[0])]


def _users(section: Value) -> Mapping[str, str]:
    """The users; messages give lines in place of names and hashes, for they end up in logs."""
    users: dict[str, str] = {}
    if not isinstance(section.node, yaml.MappingNode):
        raise section.unexpected("a mapping of user names to bcrypt hashes")
    for name, node in section.node.value:
        line = name.start_mark.line + 1
        if name.value in users:
            raise section.error(f"line {line}: this user is given twice")
        if not name.value or ":" in name.value:
            raise section.error(f"line {line}: expected the name of a user, without a colon")
        hashed = BCRYPT_HASH.fullmatch(node.value) if isinstance(node, yaml.ScalarNode) else None
        if hashed is None:
            raise section.error(f"line {line}: expected a bcrypt hash, as htpasswd -nB makes it")
        if not 4 <= int(hashed[1]) <= MAX_BCRYPT_COST:
            raise section.error(f"line {line}: expected a bcrypt cost from 4 to {MAX_BCRYPT_COST}")
        users[name.value] = hashed[0]
    return MappingProxyType(users)


def _http(section: Value) -> Mapping[str, str]:
    given = section.mapping(("http2", "headers"))
    if "http2" in given:
        boolean(given["http2"])
    headers: dict[str, str] = {}
    if "headers" in given and not given["headers"].is_empty:
        for name, value in given["headers"].mapping(HEADERS).items():
            text = value.text("the header's value")
            if HEADERS[name] and text not in HEADERS[name]:
                raise value.error(f"expected {' or '.join(HEADERS[name])}")
            if not re.fullmatch(r"([!-~]([ -~]*[!-~])?)?", text):
                raise value.error("expected printable ASCII in one line")
            if text:  # blank leaves the header as it is
                headers[name] = text
    return MappingProxyType(headers)


def _rate_limit(section: Value) -> RateLimit | None:
    given = section.mapping(("interval", "burst"))
    if "interval" not in given:
        raise section.member("interval").error("expected a duration such as 100ms, or 0 for no limit")
    interval = _go_duration(given["interval"])
    burst = integer(0, 1_000_000)(given["burst"]) if "burst" in given else 0
    if interval == 0:
        return None
    if burst == 0:
        raise section.member("burst").error("expected at least 1, as no request would be answered otherwise")
    return RateLimit(interval, burst)


def _go_duration(value: Value) -> float:
    expected = "a duration such as 100ms or 1m30s, or 0"
    text = value.text(expected)
    if text == "0":
        return 0.0
    parts = list(GO_DURATION_PART.finditer(text))
    seconds = sum(float(part[1]) * GO_DURATION_UNITS[part[2]] for part in parts)
    if not parts or "".join(part[0] for part in parts) != text or seconds > 86400:
        raise value.unexpected(expected)
    return seconds
