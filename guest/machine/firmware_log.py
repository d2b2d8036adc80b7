"""What firmware and boot loader measured into a TD's registers 0 to 2, from the log that ACPI hands over.

Event data is left out, as dstack leaves it out: digests are what a replay takes. A machine without the log, or with one
that cannot be read, has none; that is for whoever replays it to notice.

Source: Linux Documentation/ABI/testing/sysfs-firmware-acpi (tables/data); UEFI 2.10, section 38.
"""

from pathlib import Path
from typing import Final

from strongroom.errors import FormatError
from strongroom.evidence.dstack_log import Log, LogEntry
from strongroom.evidence.tcglog import MAX_BYTES, LogKind, TCGLog
from strongroom.evidence.tpm import Hash

CCEL: Final = Path("/sys/firmware/acpi/tables/data/CCEL")
_REGISTERS: Final = range(3)


def firmware_log(path: Path = CCEL) -> Log:
    """The log's entries for registers 0 to 2, in its order; nothing where there is no log."""
    try:
        with path.open("rb") as file:
            return entries(TCGLog.parse(file.read(MAX_BYTES + 1), LogKind.CC))
    except (OSError, FormatError):
        return ()


def entries(log: TCGLog) -> Log:
    """The entries of a parsed log that extend registers 0 to 2."""
    found = []
    for record in log.records:
        digest = record.digest(Hash.SHA384)
        register = record.register - 1  # the log counts MRTD too
        if record.is_extended and digest is not None and register in _REGISTERS:
            found.append(LogEntry(imr=register, event_type=record.type, digest=digest, event="", payload=b""))
    return tuple(found)
