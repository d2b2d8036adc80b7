"""The `receive` credential -> one frozen ReceiveConfig. The measured agent writes it; nothing in it is secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from strongroom.errors import ConfigError, FormatError
from strongroom.push.offer import public_key
from strongroom.sealed.manifest import check_name
from strongroom.wire.canonical import JSON, parse_json, unb64u

MAX_CREDENTIAL: Final = 64 << 10  # bytes
MAX_PROVIDERS: Final = 64
_MAX_BYTES: Final = 1 << 50
_KEYS: Final = {
    "listen_host", "listen_port", "evidence_socket", "names", "dest", "name", "providers", "max_bytes",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveConfig:
    listen_host: str
    listen_port: int  # 0 lets the kernel choose
    evidence_socket: Path
    names: tuple[str, ...]  # DNS names and addresses for the certificate
    dest: Path  # where the sealed tree is to be
    name: str  # the only model that is taken
    providers: frozenset[bytes]  # who may push: DER SPKI of Ed25519 keys
    max_bytes: int  # of all files together

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The settings in a credential. Raises ConfigError naming the key."""
        try:
            value = parse_json(raw, "receive", max_bytes=MAX_CREDENTIAL)
        except FormatError as error:
            raise ConfigError(str(error)) from error
        if not isinstance(value, dict):
            raise ConfigError(f"receive: got {type(value).__name__}, want an object")
        if wrong := sorted(value.keys() ^ _KEYS):
            raise ConfigError(f"receive.{wrong[0]}: {'unknown' if wrong[0] in value else 'missing'} key")
        return cls(
            listen_host=_text(value, "listen_host"),
            listen_port=_whole(value, "listen_port", 0, 65535),
            evidence_socket=_path(value, "evidence_socket"),
            names=tuple(_texts(value, "names")),
            dest=_path(value, "dest"),
            name=_name(value),
            providers=_providers(value),
            max_bytes=_whole(value, "max_bytes", 1, _MAX_BYTES),
        )


def _text(raw: Mapping[str, JSON], key: str) -> str:
    value = raw[key]
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ConfigError(f"receive.{key}: want printable text")
    return value


def _texts(raw: Mapping[str, JSON], key: str) -> list[str]:
    value = raw[key]
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_PROVIDERS:
        raise ConfigError(f"receive.{key}: want a list of 1..{MAX_PROVIDERS}")
    texts = [text for text in value if isinstance(text, str) and text]
    if len(texts) != len(value):
        raise ConfigError(f"receive.{key}: want text only")
    return texts


def _whole(raw: Mapping[str, JSON], key: str, low: int, high: int) -> int:
    value = raw[key]
    if type(value) is not int or not low <= value <= high:  # bool is an int: type() on purpose
        raise ConfigError(f"receive.{key}: want a whole number {low}..{high}")
    return value


def _path(raw: Mapping[str, JSON], key: str) -> Path:
    path = Path(_text(raw, key))
    if not path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"receive.{key}: got {str(path)!r}, want an absolute path without ..")
    return path


def _name(raw: Mapping[str, JSON]) -> str:
    name = _text(raw, "name")
    try:
        check_name(name)
    except FormatError as error:
        raise ConfigError(f"receive.name: {error}") from error
    return name


def _providers(raw: Mapping[str, JSON]) -> frozenset[bytes]:
    keys = []
    for text in _texts(raw, "providers"):
        try:
            keys.append(unb64u(text, "key"))
            public_key(keys[-1])
        except FormatError as error:
            raise ConfigError(f"receive.providers: {error}") from error
    if len(set(keys)) != len(keys):
        raise ConfigError("receive.providers: a key appears twice")
    return frozenset(keys)
