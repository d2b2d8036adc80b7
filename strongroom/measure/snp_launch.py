"""The launch measurement a given firmware, kernel and machine shape must give on SEV-SNP.

Every page that is loaded extends the digest once, in the order the VMM loads them: firmware, the pages the
firmware's own metadata names, then the start state of each vCPU. Whoever launches decides the order and the
registers; the three ways below are the known ones.

Source: AMD 56860, "SNP_LAUNCH_UPDATE", table "PAGE_INFO"; AMD 24593, appendix B, table "VMSA layout".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from hashlib import sha256, sha384
from types import MappingProxyType
from typing import Final
from uuid import UUID

from strongroom.errors import ConfigError, FormatError
from strongroom.measure.ovmf import OVMF, PAGE, Section, SectionKind

MAX_VCPUS: Final = 4096
_VMSA_GPA: Final = 0xFFFF_FFFF_F000
_BOOT_EIP: Final = 0xFFFF_FFF0
_TABLE: Final = UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le
_COMMAND_LINE: Final = UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a").bytes_le
_INITRD: Final = UUID("44baf731-3a2f-4bd7-9af1-41e29169781d").bytes_le
_KERNEL: Final = UUID("4de79437-abd2-427f-b835-d5b172d2045b").bytes_le


class VMM(StrEnum):
    """Whose start-up code: it sets some registers and one order of pages differently."""

    QEMU = "qemu"
    EC2 = "ec2"
    GCE = "gce"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelHashes:
    """SHA-256 of what QEMU loads beside the firmware."""

    kernel: bytes
    initrd: bytes
    command_line: bytes

    @classmethod
    def of(cls, kernel: bytes, initrd: bytes, command_line: str) -> "KernelHashes":
        """Hashes of the contents; the command line is hashed with its final NUL."""
        return cls(
            kernel=sha256(kernel).digest(),
            initrd=sha256(initrd).digest(),
            command_line=sha256(command_line.encode() + b"\0").digest(),
        )

    def page(self, offset: int) -> bytes:
        """One page with the table at `offset`."""
        entries = (
            (_COMMAND_LINE, self.command_line),
            (_INITRD, self.initrd),
            (_KERNEL, self.kernel),
        )
        body = b"".join(guid + (50).to_bytes(2, "little") + digest for guid, digest in entries)
        table = _TABLE + (18 + len(body)).to_bytes(2, "little") + body
        if offset + len(table) > PAGE:
            raise FormatError(f"kernel hashes: offset {offset} in their page leaves no room for them")
        return (bytes(offset) + table).ljust(PAGE, b"\0")


class _PageType(IntEnum):
    NORMAL = 1
    VMSA = 2
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6


@dataclass(slots=True)
class _Launch:
    digest: bytes

    def add(self, kind: _PageType, gpa: int, contents: bytes | None = None) -> None:
        page = bytes(48) if contents is None else sha384(contents).digest()
        tail = (0x70).to_bytes(2, "little") + bytes((kind, 0, 0, 0, 0, 0)) + gpa.to_bytes(8, "little")
        self.digest = sha384(self.digest + page + tail).digest()

    def add_pages(self, gpa: int, contents: bytes) -> None:
        for at in range(0, len(contents), PAGE):
            self.add(_PageType.NORMAL, gpa + at, contents[at : at + PAGE])


def launch_digest(
    ovmf: OVMF,
    *,
    vcpus: int,
    cpu_signature: int,
    hashes: KernelHashes | None = None,
    features: int = 1,
    vmm: VMM = VMM.QEMU,
    firmware_digest: bytes | None = None,
) -> bytes:
    """The 48 bytes of `measurement`.

    `cpu_signature` is CPUID leaf 1 EAX, `features` the SEV_FEATURES word. `firmware_digest` stands for the
    firmware's own pages where only their digest is at hand; the metadata is read from `ovmf` all the same.
    """
    if not 0 < vcpus <= MAX_VCPUS:
        raise ConfigError(f"vcpus: got {vcpus}, want 1..{MAX_VCPUS}")
    launch = _Launch(bytes(48) if firmware_digest is None else firmware_digest)
    if firmware_digest is None:
        launch.add_pages(ovmf.gpa, ovmf.image)
    if hashes is not None and all(s.kind != SectionKind.KERNEL_HASHES for s in ovmf.sections):
        raise FormatError("ovmf: no place for kernel hashes, want firmware built for a measured direct boot")
    for section in _in_order(ovmf.sections, vmm):
        _add_section(launch, section, ovmf, hashes, vmm)
    first = _vmsa(_BOOT_EIP, cpu_signature, features, vmm)
    others = _vmsa(ovmf.reset_eip, cpu_signature, features, vmm)
    for n in range(vcpus):
        launch.add(_PageType.VMSA, _VMSA_GPA, others if n else first)
    return launch.digest


def _in_order(sections: Iterable[Section], vmm: VMM) -> list[Section]:
    # EC2 loads the CPUID page when all others are in.
    return sorted(sections, key=lambda section: vmm == VMM.EC2 and section.kind == SectionKind.CPUID)


def _add_section(
    launch: _Launch, section: Section, ovmf: OVMF, hashes: KernelHashes | None, vmm: VMM
) -> None:
    match section.kind:
        case SectionKind.SECRETS:
            launch.add(_PageType.SECRETS, section.gpa)
        case SectionKind.CPUID:
            launch.add(_PageType.CPUID, section.gpa)
        case SectionKind.KERNEL_HASHES if hashes is not None:
            if ovmf.hashes_gpa is None:
                raise FormatError("ovmf: does not say where kernel hashes go")
            launch.add_pages(section.gpa, hashes.page(ovmf.hashes_gpa % PAGE))
        case _:
            unmeasured = vmm == VMM.GCE and section.kind == SectionKind.ZEROS
            kind = _PageType.UNMEASURED if unmeasured else _PageType.ZERO
            for gpa in range(section.gpa, section.gpa + section.size, PAGE):
                launch.add(kind, gpa)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Registers:
    """What the three VMMs start a vCPU with where they differ."""

    first_cs: int
    other_cs: int = 0x9B
    ss: int
    tr: int
    pat: int = 0x0007_0406_0007_0406
    rdx: int | None  # None: the CPU signature
    mxcsr: int
    fcw: int


_STARTS: Final[Mapping[VMM, _Registers]] = MappingProxyType(
    {
        VMM.QEMU: _Registers(first_cs=0x9B, ss=0x93, tr=0x8B, rdx=None, mxcsr=0x1F80, fcw=0x37F),
        VMM.EC2: _Registers(first_cs=0x9A, ss=0x92, tr=0x83, rdx=0x600, mxcsr=0, fcw=0),
        VMM.GCE: _Registers(first_cs=0x9B, ss=0x93, tr=0x8B, pat=0x70106, rdx=0x600, mxcsr=0, fcw=0),
    }
)


def _vmsa(eip: int, cpu_signature: int, features: int, vmm: VMM) -> bytes:
    start = _STARTS[vmm]
    page = bytearray(PAGE)

    def put(offset: int, value: int, size: int = 8) -> None:
        page[offset : offset + size] = value.to_bytes(size, "little")

    def segment(offset: int, attributes: int, selector: int = 0, base: int = 0) -> None:
        put(offset, selector | attributes << 16 | 0xFFFF << 32 | base << 64, 16)

    segment(0x00, 0x93)  # es
    segment(0x10, start.first_cs if eip == _BOOT_EIP else start.other_cs, 0xF000, eip & 0xFFFF_0000)
    segment(0x20, start.ss)
    for data_segment in (0x30, 0x40, 0x50):  # ds, fs, gs
        segment(data_segment, 0x93)
    segment(0x60, 0)  # gdtr
    segment(0x70, 0x82)  # ldtr
    segment(0x80, 0)  # idtr
    segment(0x90, start.tr)
    put(0xD0, 0x1000)  # efer: SVME
    put(0x148, 0x40)  # cr4: MCE
    put(0x158, 0x10)  # cr0
    put(0x160, 0x400)  # dr7
    put(0x168, 0xFFFF_0FF0)  # dr6
    put(0x170, 2)  # rflags
    put(0x178, eip & 0xFFFF)
    put(0x268, start.pat)
    put(0x310, cpu_signature if start.rdx is None else start.rdx)
    put(0x3B0, features)
    put(0x3E8, 1)  # xcr0
    put(0x408, start.mxcsr, 4)
    put(0x410, start.fcw, 2)
    return bytes(page)
