"""What an event log says that quoted registers confirm: the replay, and the event data that was measured.

A log is unsigned. `confirmed` replays it, compares every register the caller has from a quote, and gives back
the events of those registers alone; each carries its data only where the digest is computed from it. A loader
may log a mere label (systemd-stub logs the name of a section, not its contents): that is nobody's word.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from strongroom.errors import VerifyError
from strongroom.evidence.aael import AAELEntry
from strongroom.evidence.tcglog import EV_EFI_VARIABLE_BOOT, EV_EVENT_TAG, LogKind, Record, TCGLog
from strongroom.evidence.tpm import Hash

EV_IPL: Final = 0xD
EV_EFI_SHIM: Final = 0x800000E0  # EV_EFI_VARIABLE_AUTHORITY, where shim also logs text
_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_LOCALITIES: Final = (0, 3, 4)  # 4 when a core root of trust measured before TPM2_Startup
_LATE_LAUNCH: Final = range(17, 23)  # PCRs that are all ones until a late launch resets them


@dataclass(frozen=True, slots=True)
class Measured:
    """An event of a register that a quote confirms. `data` is None where what was measured is not in the log."""

    register: int
    type: int
    digest: bytes
    data: bytes | None


def replay(log: TCGLog, bank: Hash) -> Mapping[int, bytes]:
    """The value of every register the log extends, in one bank. A register it never extends is absent.

    Raises VerifyError where a record has no digest in `bank`: skipping it would hide an event. Zeros are the
    start of every register a firmware extends, but for PCR 0, whose last byte is the locality of the startup.
    """
    if bank not in log.banks:
        found = ", ".join(map(str, log.banks)) or "none we know"
        raise VerifyError(f"event log: banks are {found}, want {bank}")
    registers: dict[int, bytes] = {}
    locality: int | None = None
    for record in log.records:
        if record.is_extended:
            value = registers.get(record.register) or _start(log.kind, record.register, bank, locality or 0)
            registers[record.register] = bank.digest(value + _digest(record, bank))
        elif log.kind is LogKind.TPM and record.event.startswith(_STARTUP_LOCALITY):
            if locality is not None or 0 in registers:
                raise VerifyError("event log: startup locality comes late or twice, want it once and first")
            locality = _locality(record)
    return registers


def confirmed(log: TCGLog, registers: Mapping[int, bytes], bank: Hash) -> tuple[Measured, ...]:
    """The events of exactly these registers, whose values come from a verified quote.

    Raises VerifyError naming every register whose value the log does not explain. A register the log never
    extends has to be as it was at reset.
    """
    if not registers:
        raise VerifyError("event log: no register to compare with, want at least one")
    replayed = replay(log, bank)
    wrong = [
        register
        for register, value in sorted(registers.items())
        if replayed.get(register, _start(log.kind, register, bank, 0)) != value
    ]
    if wrong:
        raise VerifyError(f"event log: replay differs from the quote in {_names(log.kind, wrong)}")
    return tuple(
        Measured(record.register, record.type, _digest(record, bank), measured_data(record, bank))
        for record in log.records
        if record.is_extended and record.register in registers
    )


def measured_data(record: Record, bank: Hash) -> bytes | None:
    """The part of the event that the digest is over, found by computing it; None when there is none.

    The whole event, a variable's contents, or the text a boot loader logs behind a prefix. The name of that
    variable and the prefix are not measured and are left out.
    """
    digest = record.digest(bank)
    return next((data for data in _candidates(record) if bank.digest(data) == digest), None)


def aael_entries(events: Iterable[Measured], register: int) -> tuple[AAELEntry, ...]:
    """The entries of an attestation agent that has `register` for itself, in order and without a gap.

    Raises VerifyError for any other event of that register, and for text that is not what was measured.
    """
    return tuple(_aael_entry(event) for event in events if event.register == register)


def _aael_entry(event: Measured) -> AAELEntry:
    if event.type != EV_EVENT_TAG or event.data is None:
        raise VerifyError(f"event log: register {event.register} has an event that is no entry of the agent")
    return AAELEntry.parse(event.data)


def _start(kind: LogKind, register: int, bank: Hash, locality: int) -> bytes:
    if kind is LogKind.TPM and register in _LATE_LAUNCH:
        return b"\xff" * bank.size
    last = locality if kind is LogKind.TPM and register == 0 else 0
    return bytes(bank.size - 1) + bytes((last,))


def _digest(record: Record, bank: Hash) -> bytes:
    if (digest := record.digest(bank)) is None:
        raise VerifyError(f"event log: record at offset {record.offset} has no {bank} digest, want one")
    return digest


def _locality(record: Record) -> int:
    rest = record.event[len(_STARTUP_LOCALITY) :]
    if record.register != 0 or len(rest) != 1 or rest[0] not in _LOCALITIES:
        raise VerifyError(f"event log: startup locality is {rest[:8].hex()!a}, want 0, 3 or 4 for pcr 0")
    return rest[0]


def _candidates(record: Record) -> tuple[bytes, ...]:
    event = record.event
    if record.type == EV_EFI_VARIABLE_BOOT and len(event) >= 32:
        # GUID, length of the name in characters, length of the contents, name, contents.
        name = int.from_bytes(event[16:24], "little")
        return (event, event[32 + 2 * name :])
    if record.type in (EV_IPL, EV_EFI_SHIM):
        text = event.partition(b"\0")[0]  # GRUB logs "grub_cmd: set x=y\0" and measures "set x=y"
        return (event, text, text.partition(b": ")[2], text.partition(b" ")[2])
    return (event,)


def _names(kind: LogKind, registers: list[int]) -> str:
    if kind is LogKind.TPM:
        return ", ".join(f"pcr {register}" for register in registers)
    return ", ".join(f"rtmr {register - 1}" if register else "mrtd" for register in registers)
