"""The `door` credential -> one frozen Plan. Nothing past this module sees its JSON.

The measured agent writes it; it holds no secret but hashes of bearer tokens.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from strongroom.errors import ConfigError, FormatError
from strongroom.receipts.receipt import Engine, Model
from strongroom.wire.canonical import JSON, parse_json

MAX_BYTES: Final = 1 << 20
MAX_TENANTS: Final = 1024
_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_KEYS: Final = {
    "listen_host", "listen_port", "engine_socket", "evidence_socket", "names",
    "model", "engine", "tenants", "cache",
}  # fmt: skip


class Cache(StrEnum):
    """Who may share a prefix cache: the requests of one tenant, or nobody."""

    TENANT = "tenant"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    token_sha256: bytes = field(repr=False)


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

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The plan in a credential. Raises ConfigError naming the key."""
        try:
            value = parse_json(raw, "door", max_bytes=MAX_BYTES)
        except FormatError as error:
            raise ConfigError(str(error)) from error
        if not isinstance(value, dict):
            raise ConfigError(f"door: got {type(value).__name__}, want an object")
        if wrong := sorted(value.keys() ^ _KEYS):
            raise ConfigError(f"door.{wrong[0]}: {'unknown' if wrong[0] in value else 'missing'} key")
        try:
            model, engine = (
                Model.from_json(value["model"], "door.model"),
                Engine.from_json(value["engine"], "door.engine"),
            )
        except FormatError as error:
            raise ConfigError(str(error)) from error
        return cls(
            listen_host=_text(value, "listen_host"),
            listen_port=_port(value["listen_port"]),
            engine_socket=_socket(value, "engine_socket"),
            evidence_socket=_socket(value, "evidence_socket"),
            names=_names(value["names"]),
            model=model,
            engine=engine,
            tenants=_tenants(value["tenants"]),
            cache=_cache(value["cache"]),
        )


def _text(raw: Mapping[str, JSON], key: str, at: str = "door") -> str:
    value = raw[key]
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


def _tenants(value: JSON) -> tuple[Tenant, ...]:
    if not isinstance(value, list) or len(value) > MAX_TENANTS:
        raise ConfigError(f"door.tenants: want a list of at most {MAX_TENANTS}")
    tenants = tuple(_tenant(raw, f"door.tenants[{n}]") for n, raw in enumerate(value))
    if len({tenant.name for tenant in tenants}) != len(tenants):
        raise ConfigError("door.tenants: a name appears twice")
    if len({tenant.token_sha256 for tenant in tenants}) != len(tenants):
        raise ConfigError("door.tenants: two tenants have one token")
    return tenants


def _tenant(raw: JSON, at: str) -> Tenant:
    if not isinstance(raw, dict) or raw.keys() != {"name", "token_sha256"}:
        raise ConfigError(f"{at}: want an object with name and token_sha256")
    token = raw["token_sha256"]
    if not isinstance(token, str) or not _HEX32.fullmatch(token):
        raise ConfigError(f"{at}.token_sha256: want 64 lowercase hex digits")
    return Tenant(_text(raw, "name", at), bytes.fromhex(token))


def _cache(value: JSON) -> Cache:
    if not isinstance(value, str) or value not in {*Cache}:
        raise ConfigError(f"door.cache: want one of {', '.join(Cache)}")
    return Cache(value)
