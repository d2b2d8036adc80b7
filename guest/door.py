"""The `door` section of userdata -> Door, and what the agent tells the door of it.

Nobody here acts on most of it. It is checked here all the same, so that a wrong value ends the boot with its key path,
before anything is asked of a broker; the door reads the same rules again (sidecars/proxy/plan.py) and knows what holds
where a section or a key of it is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from guest import bounds
from guest.section import Section, distinct, list_of, mapping
from strongroom.errors import ConfigError
from strongroom.wire.canonical import JSON

Value = int | str | list[JSON]
Said = Mapping[str, Value]  # one section: each value checked, and nothing there that userdata leaves out
_NOTHING: Final[Said] = MappingProxyType({})
_ABSENT: Final[Value] = []  # a value that is not there; known by its identity
_QUEUE: Final[Said] = MappingProxyType({"length": 64, "seconds": 10})
_MOST: Final = 256  # answers at once, however many the engine gives


def _tokens(value: object, at: str) -> Value:
    tokens = list_of(bounds.EXPECTED_MAX)(value, at)
    if not tokens:
        raise ConfigError(f"{at}: empty, want 1..{bounds.EXPECTED_MAX} tokens")
    return [bounds.TOKEN.check(token, f"{at}[{n}]") for n, token in enumerate(tokens)]


_SECTIONS: Final[Mapping[str, Mapping[str, Callable[[object, str], Value]]]] = {
    "limits": {
        "requests_per_minute": bounds.REQUESTS_PER_MINUTE.check,
        "tokens_per_minute": bounds.TOKENS_PER_MINUTE.check,
        "concurrent": bounds.CONCURRENT.check,
    },
    "queue": {"length": bounds.QUEUE_LENGTH.check, "seconds": bounds.QUEUE_SECONDS.check},
    "metrics": {"tenants": bounds.FLAG.check, "port": bounds.PORT.check},
    "stream": {"pad": bounds.PAD.check, "batch_ms": bounds.BATCH.check},
    "receipts": {"hybrid": bounds.FLAG.check, "keep": bounds.RECEIPTS_KEPT.check},
    "canary": {"every_s": bounds.CANARY_EVERY.check, "expect": _tokens},
    "page": {"title": bounds.TITLE.check},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    name: str
    token_sha256: str | None  # hex; at least one of these two is set
    certificate: str | None = None  # PEM
    limits: Said | None = None
    aggregator: bool = False  # it asks for many people, each with a prefix cache of their own

    def to_json(self) -> JSON:
        value: dict[str, JSON] = {"name": self.name, "aggregator": self.aggregator}
        if self.token_sha256 is not None:
            value["token_sha256"] = self.token_sha256
        if self.certificate is not None:
            value["certificate"] = self.certificate
        if self.limits is not None:
            value["limits"] = {**self.limits}
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    port: int
    names: tuple[str, ...]
    tenants: tuple[Tenant, ...]
    cache: str  # "tenant": one prefix cache a tenant; "request": none is shared
    legacy_gpu: bool = False  # whether GPUs answer a stranger's nonce in others' shapes: guest/foreign.py
    sections: Mapping[str, Said] = field(default_factory=dict)  # by name: limits, queue, metrics ...

    def settings(self, *, sequences: int) -> dict[str, JSON]:
        """What of this goes into the door's credential. `sequences` is how many the engine works on at once."""
        names: list[JSON] = [*self.names]
        return {
            "listen_port": self.port,
            "names": names,
            "tenants": [tenant.to_json() for tenant in self.tenants],
            "cache": self.cache,
            **{name: {**said} for name, said in self.sections.items() if said},
            # One less than the engine works on: the canary must not wait there. Tenants do so at the door, in turns.
            "queue": {
                **_QUEUE,
                **self.sections.get("queue", _NOTHING),
                "places": max(1, min(_MOST, sequences - 1)),
            },
        }


def parse_door(raw: Section) -> Door:
    """Raises ConfigError with the path of the first broken key."""
    nothing: list[object] = []
    at = raw.path("names")
    names = raw.value("names", list_of(bounds.NAMES_MAX), default=nothing)
    tenants = raw.value("tenants", list_of(bounds.TENANTS_MAX), default=nothing)
    door = Door(
        port=raw.value("port", bounds.PORT.check, default=8443),
        names=tuple(bounds.HOST.check(name, f"{at}[{i}]") for i, name in enumerate(names)),
        tenants=tuple(_tenant(t, f"{raw.path('tenants')}[{i}]") for i, t in enumerate(tenants)),
        cache=raw.value("cache", bounds.CACHE_SCOPE.check, default="tenant"),
        legacy_gpu=raw.value("legacy_gpu", bounds.FLAG.check, default=False),
        sections={name: _said(raw.section(name, required=False), name) for name in _SECTIONS},
    )
    raw.end()
    at = raw.path("tenants")
    distinct((t.name for t in door.tenants), f"{at}: name")
    distinct((t.token_sha256 for t in door.tenants if t.token_sha256), f"{at}: token_sha256")
    distinct((_fingerprint(t.certificate) for t in door.tenants if t.certificate), f"{at}: certificate")
    if door.sections.get("metrics", _NOTHING).get("port") == door.port:
        raise ConfigError(
            f"{raw.path('metrics')}.port: got {door.port}, which is the door's own, want another"
        )
    return door


def _tenant(value: object, at: str) -> Tenant:
    raw = Section(mapping(value, at), at)
    name = raw.value("name", bounds.NAME.check)
    token = raw.value("token_sha256", bounds.SHA256.check) if raw.has("token_sha256") else None
    certificate = raw.value("certificate", _certificate) if raw.has("certificate") else None
    limits = _said(raw.section("limits", required=False), "limits")
    if token is None and certificate is None:
        raise ConfigError(f"{raw.path('token_sha256')}: missing, want it or a certificate, or both")
    tenant = Tenant(
        name=name,
        token_sha256=token,
        certificate=certificate,
        limits=limits if raw.has("limits") else None,
        aggregator=raw.value("aggregator", bounds.FLAG.check, default=False),
    )
    raw.end()
    return tenant


def _said(raw: Section, name: str) -> Said:
    said = {key: raw.value(key, check, default=_ABSENT) for key, check in _SECTIONS[name].items()}
    raw.end()
    return MappingProxyType({key: cast(Value, v) for key, v in said.items() if v is not _ABSENT})


def _fingerprint(certificate: str) -> str:
    return x509.load_pem_x509_certificate(certificate.encode()).fingerprint(SHA256()).hex()


def _certificate(value: object, at: str) -> str:
    text = bounds.CERTIFICATE.check(value, at)
    try:
        x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        raise ConfigError(f"{at}: not a certificate, want one in PEM") from None
    return text
