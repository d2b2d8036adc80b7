"""Azure's HCL report: a hardware report made by the paravisor, and the JSON whose hash it carries.

    0     "HCLA", version, size of header and contents, request type 2, status, 12 reserved bytes
    32    the hardware report: 1184 bytes of SNP report, or 1024 of TDREPORT and zeros
    1216  size of this part, its version, report type, hash type, size of the JSON
    1236  the JSON, then zeros to the end of the NV index

Numbers are little-endian. Nothing here is believed before strongroom.verify.azure has compared the hash.

Source: the report as Azure's firmware writes it into NV index 0x01400001.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.evidence.snp import SIZE as SNP_SIZE
from strongroom.evidence.tpm import Hash
from strongroom.wire.canonical import JSON, parse_json, unb64u
from strongroom.wire.reader import Reader

MAX_BYTES: Final = 4096  # NV indices of 2048 and 2600 bytes are known
TDREPORT_SIZE: Final = 1024
VERSIONS: Final = (1, 2)
USER_DATA_SIZE: Final = 64
AK_ID: Final = "HCLAkPub"
MAX_KEYS: Final = 8
_SUBJECT: Final = "hcl report"
_HEADER: Final = 1236  # bytes before the JSON
_PART_HEADER: Final = 20  # bytes of the second part before the JSON
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})*", re.ASCII)
_HASHES: Final = {1: Hash.SHA256, 2: Hash.SHA384, 3: Hash.SHA512}
_HASH_TYPES: Final = {algorithm: number for number, algorithm in _HASHES.items()}


class ReportType(IntEnum):
    """Which hardware made the report inside."""

    SNP = 2
    TDX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class HCLReport:
    """`hardware_report` is 1184 bytes for SNP and 1024 for TDX; `variable_data` is the JSON, byte for byte."""

    version: int
    report_type: ReportType
    hash_type: Hash
    hardware_report: bytes
    variable_data: bytes
    size: int  # of the NV index

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise FormatError(f"{_SUBJECT}: version is {self.version}, want 1 or 2")
        if self.hash_type not in _HASH_TYPES:
            raise FormatError(f"{_SUBJECT}: hash is {self.hash_type}, want sha256, sha384 or sha512")
        want = SNP_SIZE if self.report_type is ReportType.SNP else TDREPORT_SIZE
        if len(self.hardware_report) != want:
            raise FormatError(
                f"{_SUBJECT}: hardware report is {len(self.hardware_report)} bytes, want {want}"
            )
        if not self.variable_data or not _HEADER + len(self.variable_data) <= self.size <= MAX_BYTES:
            raise FormatError(
                f"{_SUBJECT}: {len(self.variable_data)} bytes of json in {self.size}, want 1 to what fits"
            )

    @property
    def report_data(self) -> bytes:
        """What report_data of the hardware report has to be: the hash of the JSON, then zeros."""
        return self.hash_type.digest(self.variable_data).ljust(64, b"\0")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an NV index as it is, zeros at its end included; FormatError names the first broken rule."""
        if len(data) > MAX_BYTES:
            raise FormatError(f"{_SUBJECT}: got {len(data)} bytes, want at most {MAX_BYTES}")
        reader = Reader(data, _SUBJECT)
        if (magic := reader.take(4)) != b"HCLA":
            raise FormatError(f"{_SUBJECT}: starts with {magic!a}, want b'HCLA'")
        version, size, request = reader.u32le(), reader.u32le(), reader.u32le()
        if request != 2:
            raise FormatError(f"{_SUBJECT}: request type is {request}, want 2")
        reader.zeros(16)  # status of the request, reserved
        hardware_report = reader.take(SNP_SIZE)
        part_size, part_version = reader.u32le(), reader.u32le()
        report_type, hash_type = _report_type(reader.u32le()), _hash_type(reader.u32le())
        variable_data = reader.take(length := reader.u32le())
        if (size, part_size, part_version) != (_HEADER + length, _PART_HEADER + length, 1):
            raise FormatError(
                f"{_SUBJECT}: its sizes {size} and {part_size} do not fit {length} bytes of json"
            )
        reader.zeros(reader.remaining)
        reader.end()
        if report_type is ReportType.TDX:
            hardware_report, padding = hardware_report[:TDREPORT_SIZE], hardware_report[TDREPORT_SIZE:]
            if any(padding):
                raise FormatError(f"{_SUBJECT}: tdreport is followed by {padding[:8].hex()}.., want zeros")
        return cls(
            version=version,
            report_type=report_type,
            hash_type=hash_type,
            hardware_report=hardware_report,
            variable_data=variable_data,
            size=len(data),
        )

    def pack(self) -> bytes:
        length = len(self.variable_data)
        fields = (length + _PART_HEADER, 1, self.report_type, _HASH_TYPES[self.hash_type], length)
        packed = b"".join(
            (
                b"HCLA",
                *(value.to_bytes(4, "little") for value in (self.version, _HEADER + length, 2)),
                bytes(16),
                self.hardware_report.ljust(SNP_SIZE, b"\0"),
                *(value.to_bytes(4, "little") for value in fields),
                self.variable_data,
            )
        )
        return packed.ljust(self.size, b"\0")


@dataclass(frozen=True, slots=True)
class RSAJWK:
    """A public key of the paravisor's vTPM, as its JSON has it."""

    kid: str
    key_ops: tuple[str, ...]
    modulus: bytes
    exponent: int


@dataclass(frozen=True, slots=True)
class RuntimeData:
    """The JSON of an HCL report. Names it has and we do not know are kept in `configuration` or ignored."""

    keys: Mapping[str, RSAJWK]  # by kid
    configuration: Mapping[str, JSON]  # "vm-configuration"
    user_data: bytes | None  # 64 bytes the guest wrote into NV index 0x01400002; absent from old firmware

    @classmethod
    def parse(cls, data: bytes) -> Self:
        value = parse_json(data, "hcl json", max_bytes=MAX_BYTES, max_depth=6)
        if not isinstance(value, dict) or not isinstance(keys := value.get("keys"), list):
            raise FormatError("hcl json: want an object with a list of keys")
        if len(keys) > MAX_KEYS:
            raise FormatError(f"hcl json: {len(keys)} keys, want at most {MAX_KEYS}")
        configuration = value.get("vm-configuration")
        if not isinstance(configuration, dict):
            raise FormatError("hcl json: vm-configuration is not an object")
        parsed = [_jwk(key, f"hcl json: keys[{n}]") for n, key in enumerate(keys)]
        by_id = {key.kid: key for key in parsed}
        if len(by_id) != len(parsed):
            raise FormatError("hcl json: two keys have one kid")
        user_data = _user_data(value["user-data"]) if "user-data" in value else None
        return cls(MappingProxyType(by_id), MappingProxyType(configuration), user_data)

    def flag(self, name: str) -> bool | None:
        """A yes or no of the configuration; None where this firmware does not say."""
        value = self.configuration.get(name)
        if value is not None and not isinstance(value, bool):
            raise FormatError(f"hcl json: vm-configuration.{name} is not true or false")
        return value

    def text(self, name: str) -> str | None:
        value = self.configuration.get(name)
        if value is not None and not isinstance(value, str):
            raise FormatError(f"hcl json: vm-configuration.{name} is not text")
        return value


def _jwk(value: JSON, at: str) -> RSAJWK:
    if not isinstance(value, dict) or value.get("kty") != "RSA":
        raise FormatError(f"{at}: want an RSA key")
    kid, n, e, key_ops = (value.get(name) for name in ("kid", "n", "e", "key_ops"))
    if not isinstance(kid, str) or not isinstance(n, str) or not isinstance(e, str):
        raise FormatError(f"{at}: kid, n and e must be text")
    if not isinstance(key_ops, list) or not all(isinstance(operation, str) for operation in key_ops):
        raise FormatError(f"{at}: key_ops must be a list of words")
    modulus, exponent = unb64u(n, f"{at}.n"), unb64u(e, f"{at}.e")
    if len(modulus) not in (256, 384, 512) or not modulus[0] & 0x80:
        raise FormatError(f"{at}: modulus of {len(modulus)} bytes, want 2048, 3072 or 4096 bits")
    if not 0 < len(exponent) <= 4 or not exponent[0] or not exponent[-1] & 1:
        raise FormatError(f"{at}: exponent is {exponent[:8].hex()}, want an odd number of at most 32 bits")
    return RSAJWK(kid, tuple(map(str, key_ops)), modulus, int.from_bytes(exponent, "big"))


def _user_data(value: JSON) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * USER_DATA_SIZE or not _HEX.fullmatch(value):
        raise FormatError(f"hcl json: user-data is not {2 * USER_DATA_SIZE} hexadecimal digits")
    return bytes.fromhex(value)


def _report_type(value: int) -> ReportType:
    if value not in {*ReportType}:
        raise FormatError(f"{_SUBJECT}: report type is {value}, want 2 (SNP) or 4 (TDX)")
    return ReportType(value)


def _hash_type(value: int) -> Hash:
    if value not in _HASHES:
        raise FormatError(f"{_SUBJECT}: hash type is {value}, want 1, 2 or 3")
    return _HASHES[value]
