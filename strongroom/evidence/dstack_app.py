"""What dstack's interface says of an application and of the machine it runs in.

    AppInfo   identities and aggregates; in certificates a MessagePack list in the order of the fields
    TCB       registers, event log and configuration: a JSON text inside Info, as released clients want it
    Info      the answer to the method of that name

A machine without these registers has 48 zero bytes in each: clients refuse null.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.evidence.dstack_log import SIZE, Log, to_json
from strongroom.wire.canonical import JSON
from strongroom.wire.messagepack import MessagePack, pack_messagepack, parse_messagepack

HASH: Final = 32  # bytes
NO_REGISTER: Final = bytes(SIZE)
_MAX_BYTES: Final = 64 * 1024
_BYTES: Final = (
    "app_id", "compose_hash", "instance_id", "device_id", "mr_system", "mr_aggregated", "os_image_hash",
    "key_provider_info",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AppInfo:
    """An empty value is one that is not known."""

    app_id: bytes
    compose_hash: bytes
    instance_id: bytes
    device_id: bytes
    mr_system: bytes
    mr_aggregated: bytes
    os_image_hash: bytes
    key_provider_info: bytes  # JSON: payload of the event "key-provider"
    init_script_hashes: tuple[bytes, ...] | None = None  # None: nothing says

    def __post_init__(self) -> None:
        for name, sizes in (("mr_system", {HASH}), ("mr_aggregated", {HASH}), ("compose_hash", {0, HASH})):
            if len(getattr(self, name)) not in sizes:
                raise FormatError(f"app info: {name} is {len(getattr(self, name))} bytes, want {HASH}")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the list that a certificate carries, whose last item older releases leave out."""
        value = parse_messagepack(data, "app info", max_bytes=_MAX_BYTES, max_depth=2)
        if not isinstance(value, list) or len(value) not in {len(_BYTES), len(_BYTES) + 1}:
            raise FormatError(f"app info: want a list of {len(_BYTES)} or {len(_BYTES) + 1} items")
        scripts = value[len(_BYTES)] if len(value) > len(_BYTES) else None
        if scripts is not None and not isinstance(scripts, list):
            raise FormatError("app info: init_script_hashes is no list")
        return cls(
            **{name: _octets(item, name) for name, item in zip(_BYTES, value, strict=False)},
            init_script_hashes=None
            if scripts is None
            else tuple(_octets(script, "init_script_hashes") for script in scripts),
        )

    def pack(self) -> bytes:
        """The list that a certificate carries."""
        scripts: MessagePack = None if self.init_script_hashes is None else [*self.init_script_hashes]
        return pack_messagepack([*(getattr(self, name) for name in _BYTES), scripts])


@dataclass(frozen=True, slots=True, kw_only=True)
class TCB:
    mrtd: bytes = NO_REGISTER
    rtmrs: tuple[bytes, bytes, bytes, bytes] = (NO_REGISTER,) * 4
    event_log: Log = ()
    app_compose: str  # the file itself, whose hash is compose_hash
    more: Mapping[str, JSON] = field(
        default_factory=dict
    )  # members of our own: clients skip what they do not know

    def __post_init__(self) -> None:
        if any(len(register) != SIZE for register in (self.mrtd, *self.rtmrs)):
            raise FormatError(f"tcb: a register is not {SIZE} bytes")

    def text(self, app: AppInfo) -> str:
        """JSON, ASCII."""
        value = {
            **self.more,
            "mrtd": self.mrtd.hex(),
            **{f"rtmr{n}": register.hex() for n, register in enumerate(self.rtmrs)},
            "mr_aggregated": app.mr_aggregated.hex(),
            "os_image_hash": app.os_image_hash.hex(),
            "compose_hash": app.compose_hash.hex(),
            "device_id": app.device_id.hex(),
            "event_log": to_json(self.event_log),
            "app_compose": self.app_compose,
        }
        return json.dumps(value, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    app: AppInfo
    tcb: TCB
    app_name: str
    app_cert: str = ""  # PEM
    vm_config: str = ""  # JSON
    cloud_vendor: str = ""
    cloud_product: str = ""

    def to_json(self, *, public: bool = True) -> dict[str, JSON]:
        """The answer of v0. Outside the machine (`public` is whether the application shows its registers)."""
        return {
            **self._common(),
            "app_cert": self.app_cert,
            "tcb_info": self.tcb.text(self.app) if public else "",
            "vm_config": self.vm_config if public else "",
            "key_provider_info": self.app.key_provider_info.decode("ascii", "replace"),
        }

    def to_json_v1(self, *, public: bool = True) -> dict[str, JSON]:
        """The answer of v1, which has no registers."""
        return {
            **self._common(),
            "app_compose": self.tcb.app_compose if public else "",
            "vm_config": self.vm_config if public else "",
            "key_provider_info": self.app.key_provider_info.decode("ascii", "replace") if public else "",
        }

    def _common(self) -> dict[str, JSON]:
        app = self.app
        return {
            "app_id": app.app_id.hex(),
            "app_name": self.app_name,
            "compose_hash": app.compose_hash.hex(),
            "instance_id": app.instance_id.hex(),
            "device_id": app.device_id.hex(),
            "os_image_hash": app.os_image_hash.hex(),
            "mr_aggregated": app.mr_aggregated.hex(),
            "cloud_vendor": self.cloud_vendor,
            "cloud_product": self.cloud_product,
        }


def _octets(value: MessagePack, name: str) -> bytes:
    if not isinstance(value, bytes):
        raise FormatError(f"app info: {name} is {type(value).__name__}, want bytes")
    return value
