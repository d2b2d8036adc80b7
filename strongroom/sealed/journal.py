"""What a seal that may be cut leaves of its progress: which objects were begun, which are finished, and their keys.

    off len field       encoding       rule
      0   8 magic       b"SRJOURNL"    exact
      8   2 version     u16 BE         2
     10   1 chunk_log2  u8             of every object it speaks of
     11   5 reserved    bytes          all zero
     16  32 salt        bytes          random, fresh for every journal
     48  32 commitment  bytes          derived from the model key and the salt

Then records: u32 BE length || AES-256-GCM of the record under the journal key, nonce = u32 0 || u64 BE number of the
record, associated data = the 80 bytes of the header. A record is u32 BE length of JSON || JSON || tags.

A journal ends where a record is cut or does not verify: that is where its writer was. It is never appended to by
another run, which would repeat nonces: who resumes begins a new one. Source: docs/formats/sealed.md, section 9.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, Self, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.errors import FormatError
from strongroom.sealed.chunks import TAG_SIZE
from strongroom.sealed.keys import Octets, VolumeKeys
from strongroom.sealed.manifest import SealedFile, pack_entry, parse_entry
from strongroom.wire.canonical import pack_json, parse_json

MAX_JOURNAL: Final = 1 << 30  # bytes
MAX_RECORD: Final = 1 << 28  # bytes: the tags of 2 TiB in chunks of 128 KiB; a larger file is sealed again
_MAGIC: Final = b"SRJOURNL"
_VERSION: Final = 2
_HEADER: Final = Struct(">8sHB5s32s32s")
_NONCE: Final = Struct(">IQ")
_LENGTH: Final = Struct(">I")
_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Begun:
    """An object that may be there in part. It is worth nothing until it is finished."""

    object_id: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """An object that is on disk whole: its entry as of then, and its tags."""

    file: SealedFile
    tags: bytes = field(repr=False)


Record: TypeAlias = Begun | Finished


class JournalWriter:
    """Turns records into the bytes to append, one after the other."""

    __slots__ = ("_aead", "_count", "header")

    def __init__(self, *, model_key: Octets, salt: bytes, chunk_log2: int) -> None:
        keys = VolumeKeys(model_key=model_key, salt=salt)
        self.header: Final = _HEADER.pack(_MAGIC, _VERSION, chunk_log2, bytes(5), salt, keys.commitment)
        self._aead = AESGCM(keys.journal_key)
        self._count = 0

    def pack(self, record: Record) -> bytes:
        sealed = self._aead.encrypt(_NONCE.pack(0, self._count), _pack(record), self.header)
        self._count += 1
        return _LENGTH.pack(len(sealed)) + sealed


@dataclass(frozen=True, slots=True)
class Journal:
    """What a journal still says."""

    records: tuple[Record, ...] = ()
    chunk_log2: int = 0

    @classmethod
    def parse(cls, data: bytes, *, model_key: Octets) -> Self:
        """As read(), of a whole journal in memory."""
        rest = memoryview(data)

        def read(size: int) -> bytes:
            nonlocal rest
            piece, rest = bytes(rest[:size]), rest[size:]
            return piece

        return cls.read(read, model_key=model_key)

    @classmethod
    def read(cls, read: Callable[[int], bytes], *, model_key: Octets) -> Self:
        """Every record up to the cut. VerifyError when another key wrote it, FormatError for no journal at all.

        `read` gives so many of the next bytes, or fewer at the end. It is asked for no more than one record at a time,
        and for nothing behind one that does not verify.
        """
        if len(header := read(_HEADER.size)) < _HEADER.size:
            return cls()  # cut before its first record
        magic, version, chunk_log2, reserved, salt, commitment = _HEADER.unpack(header)
        if magic != _MAGIC:
            raise FormatError(f"journal: magic is {magic.hex()}, want {_MAGIC.hex()}")
        if version != _VERSION or any(reserved):
            raise FormatError(f"journal: version is {version}, want {_VERSION} and zeros behind it")
        keys = VolumeKeys(model_key=model_key, salt=salt)
        keys.check_commitment(commitment, "journal")
        records = _records(read, AESGCM(keys.journal_key), header)
        return cls(tuple(records), chunk_log2)

    @property
    def finished(self) -> tuple[Finished, ...]:
        return tuple(record for record in self.records if isinstance(record, Finished))

    @property
    def object_ids(self) -> set[bytes]:
        """Every object that may be there, in part or whole."""
        return {r.object_id if isinstance(r, Begun) else r.file.object_id for r in self.records}


def _records(read: Callable[[int], bytes], aead: AESGCM, header: bytes) -> Iterator[Record]:
    number = 0
    while len(size := read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(size)
        if length > MAX_RECORD or len(sealed := read(length)) != length:
            return
        try:
            plain = aead.decrypt(_NONCE.pack(0, number), sealed, header)
        except InvalidTag:
            return
        yield _parse(plain)
        number += 1


def _pack(record: Record) -> bytes:
    if isinstance(record, Begun):
        text, tags = pack_json({"begun": record.object_id.hex()}), b""
    else:
        text, tags = pack_json({"finished": pack_entry(record.file)}), record.tags
    return _LENGTH.pack(len(text)) + text + tags


def _parse(plain: bytes) -> Record:
    """A record that verified is one of ours, so anything else in it is a defect, said as a FormatError."""
    start = _LENGTH.size
    length = int.from_bytes(plain[:start], "big")
    value, tags = parse_json(plain[start : start + length], "journal"), plain[start + length :]
    match value:
        case {"begun": str(name), **rest} if not rest and not tags and _ID.fullmatch(name):
            return Begun(bytes.fromhex(name))
        case {"finished": entry, **rest} if not rest and len(tags) % TAG_SIZE == 0:
            if isinstance(file := parse_entry(entry), SealedFile):
                return Finished(file, tags)
    raise FormatError("journal: a record is neither begun nor finished")
