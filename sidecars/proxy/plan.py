"""The `door` credential -> one frozen Plan. Nothing past this module sees its JSON.

The measured agent writes it; it holds no secret but hashes of bearer tokens. The sections from `limits` on may be left
out, each whole or in part.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import ConfigError, FormatError
from strongroom.receipts.receipt import Engine, Model
from strongroom.wire.canonical import JSON, parse_json

MAX_BYTES: Final = 1 << 20
MAX_TENANTS: Final = 1024
MAX_EXPECTED: Final = 64  # tokens of a canary's answer
_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_REQUIRED: Final = {
    "listen_host", "listen_port", "engine_socket", "evidence_socket", "names",
    "model", "engine", "tenants", "cache",
}  # fmt: skip
_OPTIONAL: Final = {"limits", "queue", "metrics", "stream", "receipts", "canary", "page"}
_TENANT: Final = {"name", "token_sha256", "certificate", "limits", "aggregator"}


class Cache(StrEnum):
    """Who may share a prefix cache: the requests of one tenant, or nobody."""

    TENANT = "tenant"
    REQUEST = "request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one tenant may use; None: no limit of this kind. A request for several answers counts as so many."""

    requests_per_minute: int | None = None  # answers
    tokens_per_minute: int | None = None  # of questions and answers together
    concurrent: int | None = None  # answers at once; None: as many as leave room for other tenants

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        raw = _section(value, at, {"requests_per_minute", "tokens_per_minute", "concurrent"})
        return cls(
            requests_per_minute=_maybe(raw, "requests_per_minute", at, 1, 10_000_000),
            tokens_per_minute=_maybe(raw, "tokens_per_minute", at, 1, 10_000_000_000),
            concurrent=_maybe(raw, "concurrent", at, 1, 65536),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlan:
    """How many answers are given at once, and how many requests may wait for that."""

    places: int = 256  # answers to all tenants together
    length: int = 0  # requests of one tenant that may wait
    seconds: int = 10  # that one may wait

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        raw = _section(value, at, {"places", "length", "seconds"})
        return cls(
            places=_whole(raw, "places", at, 1, 65536, default=cls().places),
            length=_whole(raw, "length", at, 0, 1024, default=cls().length),
            seconds=_whole(raw, "seconds", at, 1, 600, default=cls().seconds),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPlan:
    tenants: bool = False  # whether tenants are named
    port: int | None = None  # on the loopback address, beside the admin socket

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        raw = _section(value, at, {"tenants", "port"})
        return cls(tenants=_flag(raw, "tenants", at), port=_maybe(raw, "port", at, 1024, 65535))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """What hides the lengths and times of a stream's tokens. Both 0: nothing does."""

    pad: int = 0  # bytes: what is sent at once is made a multiple of this
    batch_ms: int = 0  # milliseconds over which tokens are gathered

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        raw = _section(value, at, {"pad", "batch_ms"})
        return cls(
            pad=_whole(raw, "pad", at, 0, 16384, default=0),
            batch_ms=_whole(raw, "batch_ms", at, 0, 5000, default=0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptPlan:
    hybrid: bool = False  # whether receipts are signed with ML-DSA-65 too
    keep: int = 1_000_000  # leaves of the log

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        raw = _section(value, at, {"hybrid", "keep"})
        return cls(
            hybrid=_flag(raw, "hybrid", at), keep=_whole(raw, "keep", at, 1, 100_000_000, default=cls().keep)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryPlan:
    every_s: int = 60  # seconds between two canaries
    expect: tuple[int, ...] | None = None  # tokens; None: what the first one was answered with

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        raw = _section(value, at, {"every_s", "expect"})
        return cls(
            every_s=_whole(raw, "every_s", at, 1, 86400, default=cls().every_s), expect=_expected(raw, at)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePlan:
    title: str = "Strongroom"  # of the page for people

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        raw = _section(value, at, {"title"})
        title = _text(raw, "title", at) if "title" in raw else cls().title
        if len(title) > 100:
            raise ConfigError(f"{at}.title: got {len(title)} characters, want at most 100")
        return cls(title=title)


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whoever shows each of the credentials it has: a token, a certificate, or both."""

    name: str
    token_sha256: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)  # DER
    limits: Limits = field(default=Limits(), repr=False)
    aggregator: bool = False  # it asks for many people, each with a prefix cache of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    listen_host: str
    listen_port: int  # 0 lets the kernel choose
    engine_socket: Path
    evidence_socket: Path
    names: tuple[str, ...]  # DNS names and addresses for the certificate
    model: Model
    engine: Engine
    tenants: tuple[Tenant, ...]  # none: everyone may ask, anonymously
    cache: Cache
    limits: Limits = Limits()  # of everyone anonymous; a tenant without limits of its own has these
    queue: QueuePlan = QueuePlan()
    metrics: MetricsPlan = MetricsPlan()
    stream: StreamPlan = StreamPlan()
    receipts: ReceiptPlan = ReceiptPlan()
    canary: CanaryPlan = CanaryPlan()
    page: PagePlan = PagePlan()

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """DER of what clients may show; empty when no tenant has one."""
        return tuple(t.certificate for t in self.tenants if t.certificate is not None)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The plan in a credential. Raises ConfigError naming the key."""
        try:
            parsed = parse_json(raw, "door", max_bytes=MAX_BYTES)
        except FormatError as error:
            raise ConfigError(str(error)) from error
        value = _section(parsed, "door", _REQUIRED | _OPTIONAL)
        if missing := sorted(_REQUIRED - value.keys()):
            raise ConfigError(f"door.{missing[0]}: missing key")
        try:
            model, engine = (
                Model.from_json(value["model"], "door.model"),
                Engine.from_json(value["engine"], "door.engine"),
            )
        except FormatError as error:
            raise ConfigError(str(error)) from error
        limits = Limits.from_json(value.get("limits", {}), "door.limits")
        return cls(
            listen_host=_text(value, "listen_host"),
            listen_port=_port(value["listen_port"]),
            engine_socket=_socket(value, "engine_socket"),
            evidence_socket=_socket(value, "evidence_socket"),
            names=_names(value["names"]),
            model=model,
            engine=engine,
            tenants=_tenants(value["tenants"], limits),
            cache=_cache(value["cache"]),
            limits=limits,
            queue=QueuePlan.from_json(value.get("queue", {}), "door.queue"),
            metrics=MetricsPlan.from_json(value.get("metrics", {}), "door.metrics"),
            stream=StreamPlan.from_json(value.get("stream", {}), "door.stream"),
            receipts=ReceiptPlan.from_json(value.get("receipts", {}), "door.receipts"),
            canary=CanaryPlan.from_json(value.get("canary", {}), "door.canary"),
            page=PagePlan.from_json(value.get("page", {}), "door.page"),
        )


def _section(value: JSON, at: str, keys: set[str]) -> Mapping[str, JSON]:
    if not isinstance(value, dict):
        raise ConfigError(f"{at}: got {type(value).__name__}, want an object")
    if strange := sorted(value.keys() - keys):
        raise ConfigError(f"{at}.{strange[0]}: unknown key")
    return value


def _whole(raw: Mapping[str, JSON], key: str, at: str, low: int, high: int, *, default: int) -> int:
    value = raw.get(key, default)
    if type(value) is not int or not low <= value <= high:  # bool is an int: type() on purpose
        raise ConfigError(f"{at}.{key}: want a whole number {low}..{high}")
    return value


def _maybe(raw: Mapping[str, JSON], key: str, at: str, low: int, high: int) -> int | None:
    return _whole(raw, key, at, low, high, default=low) if key in raw else None


def _flag(raw: Mapping[str, JSON], key: str, at: str) -> bool:
    value = raw.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{at}.{key}: want true or false")
    return value


def _text(raw: Mapping[str, JSON], key: str, at: str = "door") -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ConfigError(f"{at}.{key}: want printable text")
    return value


def _port(value: JSON) -> int:
    if type(value) is not int or not 0 <= value <= 65535:  # bool is an int: type() on purpose
        raise ConfigError("door.listen_port: want 0..65535")
    return value


def _socket(raw: Mapping[str, JSON], key: str) -> Path:
    path = Path(_text(raw, key))
    if not path.is_absolute():
        raise ConfigError(f"door.{key}: got {str(path)!r}, want an absolute path")
    return path


def _names(value: JSON) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigError("door.names: want at least one name")
    names = tuple(name for name in value if isinstance(name, str) and name)
    if len(names) != len(value):
        raise ConfigError("door.names: want text only")
    return names


def _tenants(value: JSON, limits: Limits) -> tuple[Tenant, ...]:
    if not isinstance(value, list) or len(value) > MAX_TENANTS:
        raise ConfigError(f"door.tenants: want a list of at most {MAX_TENANTS}")
    tenants = tuple(_tenant(raw, f"door.tenants[{n}]", limits) for n, raw in enumerate(value))
    for what, told in (
        ("a name appears twice", [tenant.name for tenant in tenants]),
        ("two tenants have one token", [t.token_sha256 for t in tenants if t.token_sha256]),
        ("two tenants have one certificate", [t.certificate for t in tenants if t.certificate]),
    ):
        if len(set(told)) != len(told):
            raise ConfigError(f"door.tenants: {what}")
    return tenants


def _tenant(value: JSON, at: str, limits: Limits) -> Tenant:
    raw = _section(value, at, _TENANT)
    if not raw.keys() & {"token_sha256", "certificate"}:
        raise ConfigError(f"{at}: want token_sha256, certificate or both")
    return Tenant(
        _text(raw, "name", at),
        _digest(raw["token_sha256"], f"{at}.token_sha256") if "token_sha256" in raw else None,
        _certificate(raw["certificate"], f"{at}.certificate") if "certificate" in raw else None,
        Limits.from_json(raw["limits"], f"{at}.limits") if "limits" in raw else limits,
        _flag(raw, "aggregator", at),
    )


def _digest(value: JSON, at: str) -> bytes:
    if not isinstance(value, str) or not _HEX32.fullmatch(value):
        raise ConfigError(f"{at}: want 64 lowercase hex digits")
    return bytes.fromhex(value)


def _certificate(value: JSON, at: str) -> bytes:
    try:
        return x509.load_pem_x509_certificate(str(value).encode()).public_bytes(Encoding.DER)
    except ValueError as error:
        raise ConfigError(f"{at}: want a certificate in PEM") from error


def _expected(raw: Mapping[str, JSON], at: str) -> tuple[int, ...] | None:
    if "expect" not in raw:
        return None
    value = raw["expect"]
    tokens = [t for t in value if type(t) is int and 0 <= t < 1 << 31] if isinstance(value, list) else []
    if not isinstance(value, list) or not 0 < len(tokens) <= MAX_EXPECTED or len(tokens) != len(value):
        raise ConfigError(f"{at}.expect: want 1..{MAX_EXPECTED} tokens")
    return tuple(tokens)


def _cache(value: JSON) -> Cache:
    if not isinstance(value, str) or value not in {*Cache}:
        raise ConfigError(f"door.cache: want one of {', '.join(Cache)}")
    return Cache(value)
