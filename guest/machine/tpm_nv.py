"""What stands in a TPM: the contents of an NV index, whether a handle is taken, and a key put under a lasting one.

Clouds leave things there for their guests: certificates of attestation keys, templates, Azure its paravisor's report.

Source: TCG TPM 2.0 Library, Part 2 section 13 (NV structures), Part 3 sections 28.5 (EvictControl), 30.2
(GetCapability), 31.3 (NV_DefineSpace), 31.4 (NV_UndefineSpace), 31.6 (NV_ReadPublic), 31.7 (NV_Write) and 31.13
(NV_Read).
"""

from typing import Final

from guest.machine.tpm import TPM, TPM_ST_NO_SESSIONS, told
from strongroom.errors import FormatError, MachineError

MAX_CONTENT: Final = 8 << 10  # bytes of one index; what is known there has at most 4096

TPM_CC_EVICT_CONTROL: Final = 0x120
TPM_CC_NV_UNDEFINE_SPACE: Final = 0x122
TPM_CC_NV_DEFINE_SPACE: Final = 0x12A
TPM_CC_NV_WRITE: Final = 0x137
TPM_CC_NV_READ: Final = 0x14E
TPM_CC_NV_READ_PUBLIC: Final = 0x169
TPM_CC_GET_CAPABILITY: Final = 0x17A
TPM_CAP_HANDLES: Final = 1
TPM_RH_OWNER: Final = 0x40000001
TPMA_NV_OWNERWRITE: Final = 1 << 1
TPMA_NV_OWNERREAD: Final = 1 << 17
TPMA_NV_AUTHREAD: Final = 1 << 18

_CHUNK: Final = 512  # bytes that every TPM reads, and writes, at once
_NAME_ALG: Final = b"\x00\x0b"  # SHA-256


def is_there(tpm: TPM, handle: int) -> bool:
    """Whether an NV index, or a lasting key, has this handle."""
    what = f"get_capability 0x{handle:08x}"
    with told(what):
        body = _u32(TPM_CAP_HANDLES) + _u32(handle) + _u32(1)
        response = tpm.command(TPM_ST_NO_SESSIONS, TPM_CC_GET_CAPABILITY, body, what)
        response.take(1)  # whether there are more beyond
        if (capability := response.u32be()) != TPM_CAP_HANDLES:
            raise MachineError(f"tpm {what}: capability is {capability}, want {TPM_CAP_HANDLES}")
        if (count := response.u32be()) > 1:
            raise MachineError(f"tpm {what}: {count} handles, want at most 1")
        found = [response.u32be() for _ in range(count)]
        response.end()
    return handle in found  # else the first one above it


def read_index(tpm: TPM, index: int) -> bytes | None:
    """All bytes of an NV index that its owner or anybody may read; None where there is no such index."""
    if not is_there(tpm, index):
        return None
    attributes, size = _public(tpm, index)
    if not attributes & (TPMA_NV_OWNERREAD | TPMA_NV_AUTHREAD):
        raise MachineError(f"tpm nv 0x{index:08x}: attributes are 0x{attributes:x}, want it readable")
    if size > MAX_CONTENT:
        raise MachineError(f"tpm nv 0x{index:08x}: {size} bytes, want at most {MAX_CONTENT}")
    reader = TPM_RH_OWNER if attributes & TPMA_NV_OWNERREAD else index
    content = bytearray()
    while len(content) < size:
        content += _read(tpm, reader, index, len(content), min(_CHUNK, size - len(content)))
    return bytes(content)


def write_index(tpm: TPM, index: int, content: bytes) -> None:
    """Make an NV index hold exactly `content`, for its owner to write and read and anybody to read.

    One of another size, or that its owner may not write, is made anew.
    """
    if not 0 < len(content) <= _CHUNK:
        raise MachineError(f"tpm nv 0x{index:08x}: {len(content)} bytes to write, want 1..{_CHUNK}")
    owner, what = _u32(TPM_RH_OWNER), f"nv_write 0x{index:08x}"
    if is_there(tpm, index):
        attributes, size = _public(tpm, index)
        if size != len(content) or not attributes & TPMA_NV_OWNERWRITE:
            _nothing(tpm, TPM_CC_NV_UNDEFINE_SPACE, owner + _u32(index), b"", f"nv_undefine 0x{index:08x}")
            _define(tpm, index, len(content))
    else:
        _define(tpm, index, len(content))
    written = len(content).to_bytes(2, "big") + content + bytes(2)
    _nothing(tpm, TPM_CC_NV_WRITE, owner + _u32(index), written, what)


def keep(tpm: TPM, handle: int, lasting: int) -> None:
    """Put the key at `handle` under the handle `lasting`, where it stays until the TPM is cleared."""
    _evict(tpm, handle, lasting)


def remove(tpm: TPM, lasting: int) -> None:
    """Free a lasting handle."""
    _evict(tpm, lasting, lasting)


def _evict(tpm: TPM, handle: int, lasting: int) -> None:
    handles = _u32(TPM_RH_OWNER) + _u32(handle)
    _nothing(tpm, TPM_CC_EVICT_CONTROL, handles, _u32(lasting), f"evict_control 0x{lasting:08x}")


def _define(tpm: TPM, index: int, size: int) -> None:
    attributes = TPMA_NV_OWNERWRITE | TPMA_NV_OWNERREAD | TPMA_NV_AUTHREAD
    public = _u32(index) + _NAME_ALG + _u32(attributes) + bytes(2) + size.to_bytes(2, "big")
    parameters = bytes(2) + len(public).to_bytes(2, "big") + public  # no authorisation value
    _nothing(tpm, TPM_CC_NV_DEFINE_SPACE, _u32(TPM_RH_OWNER), parameters, f"nv_define 0x{index:08x}")


def _nothing(tpm: TPM, code: int, handles: bytes, parameters: bytes, what: str) -> None:
    """A command that answers nothing but success."""
    answer = tpm.authorised(code, handles, parameters, what)
    if answer.parameters.remaining:
        raise MachineError(f"tpm {what}: {answer.parameters.remaining} bytes of parameters, want none")


def _public(tpm: TPM, index: int) -> tuple[int, int]:
    """Attributes and size of an index."""
    what = f"nv_read_public 0x{index:08x}"
    with told(what):
        response = tpm.command(TPM_ST_NO_SESSIONS, TPM_CC_NV_READ_PUBLIC, _u32(index), what)
        size = response.u16be()
        before = response.remaining
        if (found := response.u32be()) != index:
            raise MachineError(f"tpm {what}: answers for 0x{found:08x}")
        response.take(2)  # algorithm of its name
        attributes = response.u32be()
        response.take(response.u16be())  # its policy
        content = response.u16be()
        if before - response.remaining != size:
            raise FormatError(f"tpm {what}: public area of {before - response.remaining} bytes, says {size}")
        response.take(response.u16be())  # its name
        response.end()
    return attributes, content


def _read(tpm: TPM, reader: int, index: int, offset: int, size: int) -> bytes:
    what = f"nv_read 0x{index:08x}"
    parameters = size.to_bytes(2, "big") + offset.to_bytes(2, "big")
    answer = tpm.authorised(TPM_CC_NV_READ, _u32(reader) + _u32(index), parameters, what).parameters
    with told(what):
        piece = answer.take(answer.u16be())
        answer.end()
    if len(piece) != size:
        raise MachineError(f"tpm {what}: {len(piece)} bytes at {offset}, want {size}")
    return piece


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")
