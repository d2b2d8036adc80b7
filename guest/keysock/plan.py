"""What the boot hands to the key socket: whose machine this is, who may do what, and what everything is derived from.

Two credentials: `plan`, canonical JSON without a secret, and `root`, which is all of them. The root is 32 bytes, or the
.appkeys.json of an application that moves in from dstack.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from guest.keysock.rights import Rights
from strongroom.errors import FormatError
from strongroom.evidence.dstack_log import Log
from strongroom.evidence.dstack_log import from_json as log_from_json
from strongroom.evidence.dstack_log import to_json as log_to_json
from strongroom.keys.dstack import MAX_APPKEYS, AppKeys
from strongroom.wire.canonical import JSON, pack_json, parse_json

UNIT: Final = "strongroom-keysock.service"
PLAN: Final = "plan"
ROOT: Final = "root"
MAX_PLAN: Final = 1 << 20  # bytes: systemd's own limit for a credential
MAX_ROOT: Final = MAX_APPKEYS
VERSION: Final = 1
SHORT: Final = 32  # bytes of report data that a caller chooses without raw_quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the root comes from: measured as the event "keys-root", and shown in Info."""

    kind: str  # broker, vtpm or ephemeral
    resource: str = ""  # kbs:/// URI
    provider: bytes = b""  # SHA-256 of the broker's SPKI
    epoch: int = 1  # the newest epoch of a key

    def to_json(self) -> dict[str, JSON]:
        return {
            "root": self.kind,
            "resource": self.resource,
            "broker_spki_sha256": self.provider.hex(),
            "epoch": self.epoch,
        }

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        match value:
            case {
                "root": str(kind),
                "resource": str(resource),
                "broker_spki_sha256": str(provider),
                "epoch": int(epoch),
            }:
                return cls(kind=kind, resource=resource, provider=bytes.fromhex(provider), epoch=epoch)
        raise FormatError("key plan.origin: want root, resource, broker_spki_sha256 and epoch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    name: str
    app_id: bytes  # 20 bytes; empty: the first of the userdata's hash
    userdata_sha256: bytes
    userdata: str  # as it was measured: app_compose, in dstack's words; empty where it is long
    origin: Origin | None  # None: userdata has no section `keys`, and there is nothing to give
    rights: Rights = field(default_factory=Rights)
    strict: bool = True
    firmware: Log = ()  # what firmware measured into registers 0 to 2

    @classmethod
    def parse(cls, data: bytes) -> Self:
        match parse_json(data, "key plan", max_bytes=MAX_PLAN):
            case {
                "version": 1,
                "name": str(name),
                "app_id": str(app_id),
                "userdata_sha256": str(digest),
                "userdata": str(userdata),
                "origin": origin,
                "rights": rights,
                "strict": bool(strict),
                "firmware": firmware,
                **rest,
            } if not rest:
                return cls(
                    name=name,
                    app_id=bytes.fromhex(app_id),
                    userdata_sha256=bytes.fromhex(digest),
                    userdata=userdata,
                    origin=None if origin is None else Origin.from_json(origin),
                    rights=Rights.from_json(rights),
                    strict=strict,
                    firmware=log_from_json(firmware),
                )
        raise FormatError(f"key plan: not of the form of version {VERSION}")

    def pack(self) -> bytes:
        return pack_json(
            {
                "version": VERSION,
                "name": self.name,
                "app_id": self.app_id.hex(),
                "userdata_sha256": self.userdata_sha256.hex(),
                "userdata": self.userdata,
                "origin": None if self.origin is None else self.origin.to_json(),
                "rights": self.rights.to_json(),
                "strict": self.strict,
                "firmware": log_to_json(self.firmware),
            }
        )


def app_keys(root: bytes) -> AppKeys:
    """The keys that a root stands for; FormatError for one that is neither 32 bytes nor an .appkeys.json."""
    return AppKeys.from_seed(root) if len(root) == 32 else AppKeys.from_appkeys_json(root)
