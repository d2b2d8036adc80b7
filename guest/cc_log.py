"""The event log that goes with a TD's evidence: the firmware's (CCEL), and our own events behind it.

Ours are there where RTMR 3 follows them, on kernels that extend it. Whoever reads the log replays it to the registers
of the quote, and refuses the evidence where it does not lead there; so it is replayed here first, and one that does
not fit is left out: the quote is as good without it.
"""

from pathlib import Path
from typing import Final

from guest.machine.firmware_log import CCEL
from strongroom.errors import FormatError, VerifyError
from strongroom.evidence import aael, tcglog
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tdx import TDXQuote
from strongroom.evidence.tpm import Hash
from strongroom.verify.tcglog import confirmed

MAX_BYTES: Final = 128 << 10  # some 20 KiB are usual, and brokers take 1 MiB of everything
_REGISTERS: Final = range(1, 5)  # RTMR 0 to 3 as the log counts them; 0 is MRTD


def cc_log(quote: bytes, log: EventLog, path: Path = CCEL) -> bytes:
    """The log of this quote, from the moment when ours was `log`. Empty where there is none that leads to it."""
    try:
        with path.open("rb") as file:
            firmware = file.read(tcglog.MAX_BYTES + 1)
        body = TDXQuote.parse(quote).body
        registers = {index: body.rtmrs[index - 1] for index in _REGISTERS}
        follows = registers[aael.GUEST_REGISTER] == log.head
        whole = aael.whole_log(firmware, aael.records_of(log) if follows else b"")
        confirmed(TCGLog.parse(whole, LogKind.CC), registers, Hash.SHA384)
    except (OSError, FormatError, VerifyError):
        return b""
    return whole if len(whole) <= MAX_BYTES else b""
