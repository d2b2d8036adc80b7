"""Who a dstack application is: hashes of its configuration, and the document that launch binds to the hardware.

    compose_hash   SHA-256 of app-compose.json as deployed, byte for byte
    app_id         20 bytes; unless a contract gives it one, the first of compose_hash
    instance_id    the first 20 bytes of SHA-256(seed || app_id || platform binding), or nothing

    launch document, version 3: h = SHA-256("dstack-mr-config-v3:" || 00 || document)
        SEV-SNP   HOST_DATA  = h
        TDX       MRCONFIGID = 03 || h || 15 zero bytes
    before it     MRCONFIGID = 01 || compose_hash || 15 zero bytes
                  MRCONFIGID = 02 || Keccak-256(`preimage_v2`) || 15 zero bytes

Source: dstack's dstack-types.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final, Self

from strongroom.errors import FormatError, VerifyError
from strongroom.wire.canonical import JSON, pack_json, parse_json

MAX_COMPOSE: Final = 256 * 1024  # bytes
MAX_DOCUMENT: Final = 64 * 1024  # bytes
APP_ID: Final = 20  # bytes, as is an instance id
HASH: Final = 32  # bytes
MAX_SCRIPTS: Final = 5
_DOMAIN: Final = b"dstack-mr-config-v3:\0"
_DOCUMENT: Final = "launch document"
_WANTED: Final = frozenset({"compose_hash", "key_provider"})
_IDENTITIES: Final = ("app_id", "instance_id", "key_provider_id", "gpu_policy_hash")
_OPTIONAL: Final = frozenset({"version", "init_script_hashes", *_IDENTITIES})


class KeyProvider(StrEnum):
    """Who gave an application its keys."""

    NONE = "none"
    LOCAL = "local"
    KMS = "kms"
    TPM = "tpm"

    @property
    def event_name(self) -> str:
        """What the event log calls it."""
        return "local-sgx" if self is KeyProvider.LOCAL else self.value


def compose_hash(raw: bytes) -> bytes:
    """32 bytes. `raw` is the file as deployed: written anew by anybody, it is another file."""
    if len(raw) > MAX_COMPOSE:
        raise FormatError(f"app-compose: {len(raw)} bytes, want at most {MAX_COMPOSE}")
    return sha256(raw).digest()


def pack_compose(compose: Mapping[str, JSON], *, normalized: bool = False) -> bytes:
    """The file whose hash dstack's own tools compute for these members; without members that are null.

    `normalized` leaves out what the runner does not use.
    """
    unused = {"bash": "docker_compose_file", "docker-compose": "bash_script"}.get(str(compose.get("runner")))
    kept = {
        name: value
        for name, value in compose.items()
        if value is not None
        and not (normalized and (name == unused or (name == "pre_launch_script" and not value)))
    }
    try:
        text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except ValueError as error:  # UnicodeEncodeError is one
        raise FormatError("app-compose: holds a number or a text that json has not") from error


def app_id(compose: bytes) -> bytes:
    """20 bytes, of a compose_hash."""
    return _sized(compose, "compose_hash", HASH)[:APP_ID]


def instance_id(*, seed: bytes, app: bytes, platform: bytes = b"") -> bytes:
    """20 bytes; `platform` is what ties the instance to one machine, where something does."""
    return sha256(
        _sized(seed, "instance id seed", APP_ID) + _sized(app, "app_id", APP_ID) + platform
    ).digest()[:APP_ID]


def key_provider_payload(provider: KeyProvider, identity: bytes = b"") -> bytes:
    """The payload of the event "key-provider": `identity` is a DER SPKI, an MRENCLAVE, or nothing."""
    return json.dumps({"name": provider.event_name, "id": identity.hex()}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchDocument:
    """What the launcher says of an application, version 3. An empty value is one that it does not say."""

    compose_hash: bytes
    key_provider: KeyProvider
    app_id: bytes = b""
    instance_id: bytes = b""
    key_provider_id: bytes = b""
    gpu_policy_hash: bytes = b""
    init_script_hashes: tuple[bytes, ...] | None = None  # (): it says that there are none

    def __post_init__(self) -> None:
        _sized(self.compose_hash, f"{_DOCUMENT}.compose_hash", HASH)
        for name, size in (("app_id", APP_ID), ("instance_id", APP_ID), ("gpu_policy_hash", HASH)):
            if value := getattr(self, name):
                _sized(value, f"{_DOCUMENT}.{name}", size)
        scripts = self.init_script_hashes or ()
        if len(scripts) > MAX_SCRIPTS or any(len(script) != HASH for script in scripts):
            raise FormatError(f"{_DOCUMENT}: want at most {MAX_SCRIPTS} init scripts, {HASH} bytes each")

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """Read a document in any spelling; what launch bound is the spelling (`host_data`)."""
        value = parse_json(document, _DOCUMENT, max_bytes=MAX_DOCUMENT, max_depth=2)
        if not isinstance(value, dict) or not _WANTED <= value.keys() <= _WANTED | _OPTIONAL:
            raise FormatError(f"{_DOCUMENT}: want an object of {', '.join(sorted(_WANTED | _OPTIONAL))}")
        version, scripts = value.get("version", 3), value.get("init_script_hashes")
        if type(version) is not int or version != 3:
            raise FormatError(f"{_DOCUMENT}.version: got {ascii(version)[:40]}, want 3")
        if scripts is not None and not isinstance(scripts, list):
            raise FormatError(f"{_DOCUMENT}.init_script_hashes: want a list")
        return cls(
            compose_hash=_hex(value["compose_hash"], "compose_hash"),
            key_provider=_provider(value["key_provider"]),
            init_script_hashes=None
            if scripts is None
            else tuple(_hex(script, "init_script_hashes") for script in scripts),
            **{name: _hex(value.get(name) or "", name) for name in _IDENTITIES},
        )

    def pack(self) -> bytes:
        """The document in the one spelling that launchers write."""
        value: dict[str, JSON] = {
            "version": 3,
            "compose_hash": self.compose_hash.hex(),
            "key_provider": self.key_provider.value,
        }
        for name in _IDENTITIES:
            if field := getattr(self, name):
                value[name] = field.hex()
        if self.init_script_hashes is not None:
            value["init_script_hashes"] = [script.hex() for script in self.init_script_hashes]
        return pack_json(value)


def host_data(document: bytes) -> bytes:
    """32 bytes: HOST_DATA of an SEV-SNP guest launched with these very bytes."""
    return sha256(_DOMAIN + document).digest()


def mr_config_id(version: int, digest: bytes) -> bytes:
    """48 bytes: MRCONFIGID of a TDX guest. The digest is the one of its version, see above."""
    if version not in {1, 2, 3}:
        raise FormatError(f"mr_config_id: version is {version}, want 1..3")
    return bytes((version,)) + _sized(digest, "mr_config_id: digest", HASH) + bytes(15)


def preimage_v2(*, compose: bytes, app: bytes, provider: KeyProvider, provider_id: bytes) -> bytes:
    """What version 2 hashes, with Keccak-256."""
    kind = (KeyProvider.NONE, KeyProvider.LOCAL, KeyProvider.KMS, KeyProvider.TPM).index(provider)
    return (
        _sized(compose, "compose_hash", HASH) + _sized(app, "app_id", APP_ID) + bytes((kind,)) + provider_id
    )


def require_launched(document: bytes, *, measured: bytes) -> LaunchDocument:
    """The document, once it is the one that launch bound: `measured` is HOST_DATA (32 bytes) or MRCONFIGID (48)."""
    digest = host_data(document)
    wanted = digest if len(measured) == HASH else mr_config_id(3, digest)
    if measured != wanted:
        raise VerifyError(f"{_DOCUMENT}: launch bound {measured.hex()}, and this is {wanted.hex()}")
    return LaunchDocument.parse(document)


def _provider(value: JSON) -> KeyProvider:
    for provider in KeyProvider:
        if value == provider:
            return provider
    raise FormatError(f"{_DOCUMENT}.key_provider: got {ascii(value)[:40]}")


def _sized(value: bytes, name: str, size: int) -> bytes:
    if len(value) != size:
        raise FormatError(f"{name}: {len(value)} bytes, want {size}")
    return value


def _hex(value: JSON, name: str) -> bytes:
    try:
        return bytes.fromhex(value if isinstance(value, str) else "?")
    except ValueError as error:
        raise FormatError(f"{_DOCUMENT}.{name}: not hex") from error
