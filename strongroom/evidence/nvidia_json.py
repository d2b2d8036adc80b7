"""Evidence of several devices in the JSON shape NVIDIA's own tools exchange.

    [{"arch": "HOPPER" | "BLACKWELL" | "LS10", "certificate": base64 of PEM, "evidence": base64, "nonce": hex}, ...]

Newer tools add a version and the driver and VBIOS versions, which the signed report says again.
"""

from dataclasses import dataclass
from typing import Final

from strongroom.errors import FormatError
from strongroom.evidence.spdm import NONCE_SIZE
from strongroom.wire.canonical import JSON, b64, unb64

MAX_DEVICES: Final = 32
_SUBJECT: Final = "nvidia evidence"
_ARCHITECTURES: Final = {"HOPPER", "BLACKWELL", "LS10"}
_KEYS: Final = {"arch", "certificate", "evidence", "nonce"}
_OPTIONAL: Final = {"version", "driver_version", "vbios_version"}


@dataclass(frozen=True, slots=True)
class DeviceEvidence:
    """One device as it was collected; nothing of it is believed yet."""

    architecture: str  # "hopper", "blackwell", "ls10"
    certificates: bytes  # PEM
    report: bytes
    nonce: bytes  # what the collector says it asked with; the report carries the one that counts


def from_nvidia(value: JSON) -> tuple[DeviceEvidence, ...]:
    """The devices in the list, or FormatError naming the first bad member."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_DEVICES:
        raise FormatError(f"{_SUBJECT}: want a list of 1..{MAX_DEVICES} devices")
    return tuple(_device(item, f"{_SUBJECT}[{n}]") for n, item in enumerate(value))


def to_nvidia(devices: tuple[DeviceEvidence, ...]) -> JSON:
    return [
        {
            "arch": device.architecture.upper(),
            "certificate": b64(device.certificates),
            "evidence": b64(device.report),
            "nonce": device.nonce.hex(),
        }
        for device in devices
    ]


def _device(value: JSON, at: str) -> DeviceEvidence:
    if not isinstance(value, dict) or not value.keys() >= _KEYS or value.keys() - _KEYS - _OPTIONAL:
        raise FormatError(f"{at}: want exactly the keys arch, certificate, evidence, nonce")
    texts = {key: text for key, text in value.items() if isinstance(text, str)}
    if texts.keys() != value.keys():
        raise FormatError(f"{at}: every value must be text")
    if texts["arch"] not in _ARCHITECTURES:
        raise FormatError(f"{at}: arch is {ascii(texts['arch'])[:40]}, want HOPPER, BLACKWELL or LS10")
    return DeviceEvidence(
        architecture=texts["arch"].lower(),
        certificates=unb64(texts["certificate"], f"{at}.certificate"),
        report=unb64(texts["evidence"], f"{at}.evidence"),
        nonce=_nonce(texts["nonce"], f"{at}.nonce"),
    )


def _nonce(text: str, at: str) -> bytes:
    try:
        nonce = bytes.fromhex(text)
    except ValueError as error:
        raise FormatError(f"{at}: not hex") from error
    if len(nonce) != NONCE_SIZE or len(text) != 2 * NONCE_SIZE:
        raise FormatError(f"{at}: {len(nonce)} bytes, want {NONCE_SIZE}")
    return nonce
