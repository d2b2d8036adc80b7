"""An AMD SEV-SNP attestation report: 1184 bytes in, fields out, and back to the same bytes.

Layout: AMD 56860, table "ATTESTATION_REPORT", versions 2 to 5. All numbers are little-endian. Reserved bytes
must be zero, so a report has one encoding and nothing unnamed is signed. Version 3 added the CPUID bytes,
version 5 the mitigation vectors.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

SIZE: Final = 0x4A0
SIGNED_SIZE: Final = 0x2A0
VERSIONS: Final = range(2, 6)
FAMILY_ZEN5: Final = 0x1A  # from this family on, the TCB version starts with the FMC

_SUBJECT: Final = "snp report"
_BYTE_FIELDS: Final = {
    "family_id": 16,
    "image_id": 16,
    "report_data": 64,
    "measurement": 48,
    "host_data": 32,
    "id_key_digest": 48,
    "author_key_digest": 48,
    "report_id": 32,
    "report_id_ma": 32,
    "chip_id": 64,
}
_INT_FIELDS: Final = {  # bytes
    "guest_svn": 4,
    "policy": 8,
    "vmpl": 4,
    "signature_algo": 4,
    "platform_info": 8,
    "key_info": 4,
    "cpuid_family": 1,
    "cpuid_model": 1,
    "cpuid_stepping": 1,
    "launch_mit_vector": 8,
    "current_mit_vector": 8,
    "signature_r": 48,  # the top 24 bytes of its 72-byte field must be zero
    "signature_s": 48,
}
_TCB_FIELDS: Final = ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")


class SigningKey(IntEnum):
    """key_info bits 2 to 4."""

    VCEK = 0
    VLEK = 1
    NONE = 7


@dataclass(frozen=True, slots=True)
class FirmwareVersion:
    major: int
    minor: int
    build: int

    def __post_init__(self) -> None:
        if not all(0 <= part <= 0xFF for part in (self.major, self.minor, self.build)):
            raise FormatError(f"firmware version: {self}, want three numbers 0..255")

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TCB:
    """Security patch levels, each one byte. `fmc` exists on Turin and later, and there alone."""

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    def __post_init__(self) -> None:
        for name, level in self.levels().items():
            if not 0 <= level <= 0xFF:
                raise FormatError(f"tcb: {name} is {level}, want 0..255")

    def levels(self) -> dict[str, int]:
        """Component to level, without the FMC where there is none."""
        levels = {} if self.fmc is None else {"fmc": self.fmc}
        return levels | {
            "bootloader": self.bootloader,
            "tee": self.tee,
            "snp": self.snp,
            "microcode": self.microcode,
        }

    @classmethod
    def parse(cls, data: bytes, *, has_fmc: bool) -> Self:
        """Read the eight bytes of TCB_VERSION in the layout of the processor's family."""
        reader = Reader(data, "tcb")
        fmc = reader.u8() if has_fmc else None
        bootloader, tee = reader.u8(), reader.u8()
        if has_fmc:
            snp = reader.u8()
            reader.zeros(3)
        else:
            reader.zeros(4)
            snp = reader.u8()
        microcode = reader.u8()
        reader.end()
        return cls(fmc=fmc, bootloader=bootloader, tee=tee, snp=snp, microcode=microcode)

    def pack(self) -> bytes:
        if self.fmc is None:
            return bytes((self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode))
        return bytes((self.fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode))


@dataclass(frozen=True, slots=True, kw_only=True)
class SNPReport:
    """Fields carry the specification's names; CPUID and mitigation fields are zero in versions without."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algo: int
    current_tcb: TCB
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: TCB
    cpuid_family: int
    cpuid_model: int
    cpuid_stepping: int
    chip_id: bytes
    committed_tcb: TCB
    current: FirmwareVersion
    committed: FirmwareVersion
    launch_tcb: TCB
    launch_mit_vector: int
    current_mit_vector: int
    signature_r: int
    signature_s: int

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise FormatError(f"{_SUBJECT}: version is {self.version}, want 2..5")
        for name, size in _BYTE_FIELDS.items():
            if (found := len(getattr(self, name))) != size:
                raise FormatError(f"{_SUBJECT}: {name} is {found} bytes, want {size}")
        for name, size in _INT_FIELDS.items():
            if not 0 <= getattr(self, name) < 1 << 8 * size:
                raise FormatError(f"{_SUBJECT}: {name} does not fit {size} bytes")
        if self.version < 3 and (self.cpuid_family or self.cpuid_model or self.cpuid_stepping):
            raise FormatError(f"{_SUBJECT}: cpuid in version {self.version}, want it from version 3 on")
        if self.version < 5 and (self.launch_mit_vector or self.current_mit_vector):
            raise FormatError(f"{_SUBJECT}: mitigation vectors in version {self.version}, want version 5")
        for name in _TCB_FIELDS:
            if (getattr(self, name).fmc is not None) != (self.cpuid_family >= FAMILY_ZEN5):
                raise FormatError(f"{_SUBJECT}: {name} has the layout of another processor family")

    @property
    def debug_allowed(self) -> bool:
        return bool(self.policy >> 19 & 1)

    @property
    def migration_allowed(self) -> bool:
        return bool(self.policy >> 18 & 1)

    @property
    def smt_allowed(self) -> bool:
        return bool(self.policy >> 16 & 1)

    @property
    def signing_key(self) -> SigningKey | None:
        """None for the values the specification reserves."""
        value = self.key_info >> 2 & 7
        return SigningKey(value) if value in {*SigningKey} else None

    @property
    def signed_part(self) -> bytes:
        """The 672 bytes under the signature."""
        return self.pack()[:SIGNED_SIZE]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read exactly 1184 bytes, or raise FormatError naming the first broken rule."""
        if len(data) != SIZE:
            raise FormatError(f"{_SUBJECT}: got {len(data)} bytes, want {SIZE}")
        version = int.from_bytes(data[:4], "little")
        if version not in VERSIONS:
            raise FormatError(f"{_SUBJECT}: version is {version}, want 2..5")
        has_fmc = version >= 3 and data[0x188] >= FAMILY_ZEN5
        reader = Reader(data, _SUBJECT)

        def tcb() -> TCB:
            return TCB.parse(reader.take(8), has_fmc=has_fmc)

        # Keyword arguments are evaluated in the order written: this call is the layout table.
        report = cls(
            version=reader.u32le(),
            guest_svn=reader.u32le(),
            policy=reader.u64le(),
            family_id=reader.take(16),
            image_id=reader.take(16),
            vmpl=reader.u32le(),
            signature_algo=reader.u32le(),
            current_tcb=tcb(),
            platform_info=reader.u64le(),
            key_info=_then_zeros(reader.u32le(), reader, 4),
            report_data=reader.take(64),
            measurement=reader.take(48),
            host_data=reader.take(32),
            id_key_digest=reader.take(48),
            author_key_digest=reader.take(48),
            report_id=reader.take(32),
            report_id_ma=reader.take(32),
            reported_tcb=tcb(),
            cpuid_family=reader.u8(),
            cpuid_model=reader.u8(),
            cpuid_stepping=_then_zeros(reader.u8(), reader, 21),
            chip_id=reader.take(64),
            committed_tcb=tcb(),
            current=_firmware(reader),
            committed=_firmware(reader),
            launch_tcb=tcb(),
            launch_mit_vector=reader.u64le(),
            current_mit_vector=_then_zeros(reader.u64le(), reader, 152),
            signature_r=_then_zeros(int.from_bytes(reader.take(48), "little"), reader, 24),
            signature_s=_then_zeros(int.from_bytes(reader.take(48), "little"), reader, 24),
        )
        reader.zeros(368)
        reader.end()
        return report

    def pack(self) -> bytes:
        return b"".join(
            (
                _le(self.version, 4),
                _le(self.guest_svn, 4),
                _le(self.policy, 8),
                self.family_id,
                self.image_id,
                _le(self.vmpl, 4),
                _le(self.signature_algo, 4),
                self.current_tcb.pack(),
                _le(self.platform_info, 8),
                _le(self.key_info, 4),
                bytes(4),
                self.report_data,
                self.measurement,
                self.host_data,
                self.id_key_digest,
                self.author_key_digest,
                self.report_id,
                self.report_id_ma,
                self.reported_tcb.pack(),
                bytes((self.cpuid_family, self.cpuid_model, self.cpuid_stepping)),
                bytes(21),
                self.chip_id,
                self.committed_tcb.pack(),
                bytes((self.current.build, self.current.minor, self.current.major, 0)),
                bytes((self.committed.build, self.committed.minor, self.committed.major, 0)),
                self.launch_tcb.pack(),
                _le(self.launch_mit_vector, 8),
                _le(self.current_mit_vector, 8),
                bytes(152),
                _le(self.signature_r, 72),
                _le(self.signature_s, 72),
                bytes(368),
            )
        )


def _then_zeros(value: int, reader: Reader, n: int) -> int:
    reader.zeros(n)
    return value


def _firmware(reader: Reader) -> FirmwareVersion:
    build, minor, major = reader.take(3)
    reader.zeros(1)
    return FirmwareVersion(major=major, minor=minor, build=build)


def _le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")
