"""An entry of the guest's attestation-agent event log: what follows the firmware's records in a CCEL.

The event of an EV_EVENT_TAG record: tag u32, length u32, then "<domain> <operation> <content>" in UTF-8. Its
digest is over all of it.

Source: Confidential Containers guest-components, attestation-agent/docs/event-log.md.
"""

from dataclasses import dataclass
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

TAG: Final = 0x4141454C
MAX_CONTENT: Final = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class AAELEntry:
    """Who did what to what: two words without spaces, and the rest of one line."""

    domain: str
    operation: str
    content: str

    def __post_init__(self) -> None:
        for word in (self.domain, self.operation):
            if not word or not word.isprintable() or " " in word:
                raise FormatError(f"aael entry: {word[:64]!a} is not one word")
        if not self.content.isprintable() or len(self.content.encode()) > MAX_CONTENT:
            raise FormatError(f"aael entry: content is not one line of at most {MAX_CONTENT} bytes")

    @classmethod
    def parse(cls, event: bytes) -> Self:
        """Read the event of a record; FormatError for another tag, another length or another shape."""
        reader = Reader(event, "aael entry")
        if (tag := reader.u32le()) != TAG:
            raise FormatError(f"aael entry: tag is 0x{tag:08x}, want 0x{TAG:08x}")
        raw = reader.take(reader.u32le())
        reader.end()
        try:
            domain, operation, content = raw.decode().split(" ", 2)
        except ValueError as error:  # UnicodeDecodeError is one
            raise FormatError("aael entry: want domain, operation and content in UTF-8") from error
        return cls(domain, operation, content)

    def pack(self) -> bytes:
        raw = f"{self.domain} {self.operation} {self.content}".encode()
        return _le(TAG) + _le(len(raw)) + raw


def _le(value: int) -> bytes:
    return value.to_bytes(4, "little")
