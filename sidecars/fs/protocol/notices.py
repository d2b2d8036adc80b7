"""What we tell the kernel unasked. Pure: bytes out.

A notice looks like a reply to request 0 with its code where a reply has its error. None that touches pages may ever be
sent by whoever answers READ: it would wait for a page lock that a pending READ holds.

Source: linux/include/uapi/linux/fuse.h, enum fuse_notify_code.
"""

from struct import Struct
from typing import Final

from sidecars.fs.protocol.frames import HEADER_SIZE

_OUT_HEADER: Final = Struct("=IiQ")
_RESEND: Final = 7  # Linux 6.9


def pack_resend() -> bytes:
    """Every request that was given out and not answered is given out again, with RESENT in its unique."""
    return _OUT_HEADER.pack(HEADER_SIZE, _RESEND, 0)
