"""Every field of a piece of evidence, with its specification's name, its offset and its size, in order.

An outline is for people: it shows where things stand, also in bytes a parser refuses, and decides nothing. The
fields of a whole outline cover every byte exactly once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from strongroom.evidence import snp_bits
from strongroom.evidence.snp import FAMILY_ZEN5
from strongroom.evidence.snp_certs import MAX_ENTRIES
from strongroom.wire.reader import Reader

LONGEST: Final = 96  # hex bytes of a value shown; a measurement fits


@dataclass(frozen=True, slots=True)
class Field:
    """Where one value stands, and what it is in words."""

    offset: int
    size: int
    name: str
    value: str


class Outline:
    """Walks over bytes and notes each field it passes; a shortfall is a FormatError, as in any reader."""

    def __init__(self, data: bytes, subject: str, *, base: int = 0) -> None:
        self._reader = Reader(data, subject)
        self._data, self._base, self._at = data, base, base
        self.fields: list[Field] = []

    @property
    def at(self) -> int:
        """Where the next field begins."""
        return self._at

    @property
    def remaining(self) -> int:
        return self._reader.remaining

    def take(self, name: str, size: int, words: str | None = None) -> bytes:
        """`size` bytes shown as hex, or as `words`; none are no field."""
        data = self._reader.take(size)
        if not data:
            return data
        self.fields.append(Field(self._at, size, name, hexed(data) if words is None else words))
        self._at += size
        return data

    def number(
        self, name: str, size: int, *, big: bool = False, words: Mapping[int, str] | None = None
    ) -> int:
        """A number in decimal and hex, with its word where it has one."""
        value = int.from_bytes(self.take(name, size), "big" if big else "little")
        word = (words or {}).get(value)
        self._say(f"{value}{f' = 0x{value:x}' if value > 9 else ''}{f' ({word})' if word else ''}")
        return value

    def bits(self, name: str, size: int, names: Mapping[str, int], *, big: bool = False) -> int:
        """A number whose bits have names: those that are set are listed."""
        value = int.from_bytes(self.take(name, size), "big" if big else "little")
        if not size:
            return 0
        found = [bit for bit, at in names.items() if value >> at & 1]
        listed = f" ({', '.join(found)})" if found else ""
        self._say(f"0x{value:0{2 * size}x}{listed}")
        return value

    def text(self, name: str, size: int, encoding: str = "utf-8") -> bytes:
        """Text as it stands; what is no text, as hex."""
        data = self.take(name, size)
        decoded = data.rstrip(b"\0").decode(encoding, "replace")
        if decoded.isprintable() and "\N{REPLACEMENT CHARACTER}" not in decoded:
            self._say(repr(decoded if len(decoded) <= 2 * LONGEST else decoded[: 2 * LONGEST] + "..."))
        return data

    def reserved(self, size: int, name: str = "reserved") -> None:
        self.take(name, size)

    def rest(self, name: str) -> bytes:
        """All that is left, when something is."""
        return self.take(name, self.remaining)

    def peek(self, size: int) -> bytes:
        """Up to `size` of the bytes that come next, which stay."""
        return self._data[self._at - self._base :][:size]

    def _say(self, words: str) -> None:
        last = self.fields[-1]
        self.fields[-1] = Field(last.offset, last.size, last.name, words)


def hexed(data: bytes) -> str:
    """Bytes as hex; long runs of one byte and long values in short."""
    if len(data) > 8 and len(set(data)) == 1:
        return f"{data[0]:02x} x {len(data)}"
    return data.hex() if len(data) <= LONGEST else f"{data[:32].hex()}... ({len(data)} bytes)"


def snp_report(out: Outline) -> None:
    """AMD 56860, table "ATTESTATION_REPORT"."""
    version = out.number("VERSION", 4)
    out.number("GUEST_SVN", 4)
    out.bits("POLICY", 8, snp_bits.POLICY)
    out.take("FAMILY_ID", 16)
    out.take("IMAGE_ID", 16)
    out.number("VMPL", 4)
    out.number("SIGNATURE_ALGO", 4, words={1: "ECDSA P-384 with SHA-384"})
    out.take("CURRENT_TCB", 8)
    out.bits("PLATFORM_INFO", 8, snp_bits.PLATFORM)
    out.bits("KEY_INFO", 4, snp_bits.KEY)
    out.reserved(4)
    for name, size in _SNP_MIDDLE:
        out.take(name, size)
    out.take("REPORTED_TCB", 8)
    family = 0
    if version >= 3:
        family = out.number("CPUID_FAM_ID", 1)
        out.number("CPUID_MOD_ID", 1)
        out.number("CPUID_STEP", 1)
    out.reserved(21 if version >= 3 else 24)
    out.take("CHIP_ID", 64)
    out.take("COMMITTED_TCB", 8)
    for which in ("CURRENT", "COMMITTED"):
        for part in ("BUILD", "MINOR", "MAJOR"):
            out.number(f"{which}_{part}", 1)
        out.reserved(1)
    out.take("LAUNCH_TCB", 8)
    out.take("LAUNCH_MIT_VECTOR" if version >= 5 else "reserved", 8)
    out.take("CURRENT_MIT_VECTOR" if version >= 5 else "reserved", 8)
    out.reserved(152)
    for name in ("SIGNATURE.R", "SIGNATURE.S"):
        out.take(name, 72)
    out.reserved(368, "SIGNATURE.reserved")
    out.rest("left over")
    _say_levels(out, has_fmc=family >= FAMILY_ZEN5)


def certificate_table(out: Outline) -> None:
    """AMD 56421, the table of the extended guest request: entries, then certificates."""
    entries: list[tuple[int, int, str]] = []
    while out.remaining:
        guid = out.take(f"entry[{len(entries)}].guid", 16)
        name = str(UUID(bytes_le=guid))
        offset, size = (out.number(f"entry[{len(entries)}].{part}", 4) for part in ("offset", "length"))
        if not any(guid) or len(entries) == MAX_ENTRIES:
            break
        entries.append((offset, size, name))
    for offset, size, name in sorted(entries):
        if offset > out.at:
            out.take("between certificates", offset - out.at)
        out.take(f"certificate {name}", size, words=f"DER, {size} bytes")
    out.rest("left over")


_SNP_MIDDLE: Final = (
    ("REPORT_DATA", 64),
    ("MEASUREMENT", 48),
    ("HOST_DATA", 32),
    ("ID_KEY_DIGEST", 48),
    ("AUTHOR_KEY_DIGEST", 48),
    ("REPORT_ID", 32),
    ("REPORT_ID_MA", 32),
)
_LEVELS: Final = {
    False: (("bootloader", 0), ("tee", 1), ("snp", 6), ("microcode", 7)),
    True: (("fmc", 0), ("bootloader", 1), ("tee", 2), ("snp", 3), ("microcode", 7)),
}


def _say_levels(out: Outline, *, has_fmc: bool) -> None:
    for n, field in enumerate(out.fields):
        if field.name.endswith("_TCB"):
            raw = bytes.fromhex(field.value)
            words = " ".join(f"{name}={raw[byte]}" for name, byte in _LEVELS[has_fmc])
            out.fields[n] = Field(field.offset, field.size, field.name, f"{raw.hex()} ({words})")
