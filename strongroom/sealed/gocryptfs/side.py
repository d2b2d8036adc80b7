"""The side manifest: one file that says what a gocryptfs volume holds, down to every block, and one digest to name it.

    clear     104 bytes: magic, version, suite, epoch, volume id, salt, commitment
    body      AES-256-GCM: u32 BE length || JSON || digests, 32 bytes for each MiB of each file
    digest    SHA-256 over nonce || tag of each block of the MiB; of a hole, zeros

It makes one tree of what gocryptfs authenticates block by block, and changes nothing in the volume.
Source: docs/formats/gocryptfs.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from struct import Struct
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from strongroom.errors import FormatError, PolicyError, VerifyError
from strongroom.sealed.gocryptfs.config import LONGEST_NAME, Flag, Settings, check_flags
from strongroom.sealed.gocryptfs.kdf import KEY_SIZE
from strongroom.sealed.gocryptfs.side_entries import Entry, File, check_entries, pack_entry, parse_entry
from strongroom.sealed.header import MAX_EPOCH
from strongroom.sealed.keys import Octets
from strongroom.sealed.manifest import check_name
from strongroom.wire.canonical import JSON, pack_json, parse_json

MAGIC: Final = b"SRGCSIDE"
VERSION: Final = 1
SUITE: Final = 1  # AES-256-GCM, SHA-256
DIGEST_SIZE: Final = 32
SIDE_SALT_SIZE: Final = 32
VOLUME_ID_SIZE: Final = 16
MAX_TABLE: Final = 1 << 26  # bytes of JSON
MAX_SIDE: Final = 1 << 30  # bytes of the whole file: digests of 30 TB
_LAYOUT: Final = Struct(">8sHB5sQ16s32s32s")
_SIZE: Final = _LAYOUT.size
_LENGTH: Final = Struct(">I")
_TAG: Final = 16
_NONCE: Final = bytes(12)  # the key is fresh with every salt and seals once
_LABEL: Final = b"strongroom/gocryptfs/v1/"


@dataclass(frozen=True, slots=True, kw_only=True)
class SideManifest:
    """What a volume has to be. `root` names it; empty until it was sealed."""

    epoch: int
    name: str
    flags: frozenset[Flag]
    long_name_max: int = LONGEST_NAME
    entries: tuple[Entry, ...]
    digests: bytes = field(repr=False)
    root: bytes = b""
    _starts: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        check_flags(self.flags, self.long_name_max)
        check_entries(self.entries)
        if not 1 <= self.epoch <= MAX_EPOCH:
            raise FormatError(f"side manifest: epoch is {self.epoch}, want 1..{MAX_EPOCH}")
        starts, at = dict[str, int](), 0
        for entry in self.entries:
            if isinstance(entry, File):
                starts[entry.path], at = at, at + entry.pins * DIGEST_SIZE
        if len(self.digests) != at:
            raise FormatError(f"side manifest: {len(self.digests)} bytes of digests, want {at}")
        object.__setattr__(self, "_starts", starts)

    def digests_of(self, file: File) -> memoryview:
        """The digests of one file, 32 bytes for each MiB."""
        start = self._starts[file.path]
        return memoryview(self.digests)[start : start + file.pins * DIGEST_SIZE]

    @property
    def hole_count(self) -> int:
        """Blocks that are holes, in all files."""
        files = (entry for entry in self.entries if isinstance(entry, File))
        return sum(count for file in files for _, count in file.holes)

    def check_settings(self, settings: Settings) -> None:
        """Raise VerifyError unless gocryptfs.conf says the volume is read the way it was when this was made."""
        # Whoever changes a password writes another file, so it is not pinned byte by byte.
        mine, theirs = self.flags - {Flag.FIDO2}, settings.flags - {Flag.FIDO2}
        if odd := mine ^ theirs:
            raise VerifyError(f"gocryptfs.conf: flag {min(odd)} is not as the side manifest has it")
        if settings.long_name_max != self.long_name_max:
            raise VerifyError(
                f"gocryptfs.conf: LongNameMax is {settings.long_name_max}, want {self.long_name_max}"
            )

    @classmethod
    def open(cls, data: bytes, *, master_key: Octets, epoch: int, root: bytes) -> Self:
        """The manifest in a whole file.

        Raises PolicyError for another epoch; VerifyError for another root digest, another key or a file that was
        changed; FormatError for bytes that no writer of ours would write.
        """
        if not _SIZE + _TAG < len(data) <= MAX_SIDE:
            raise FormatError(f"side manifest: {len(data)} bytes, want {_SIZE + _TAG + 1}..{MAX_SIDE}")
        found_epoch, salt, commitment = _parse_clear(data[:_SIZE])
        if found_epoch != epoch:
            raise PolicyError(f"side manifest: epoch is {found_epoch}, want {epoch}")
        if (found := side_root(data)) != root:
            raise VerifyError(f"side manifest: root digest is {found.hex()}, want {root.hex()}")
        mine, key = _keys(master_key, salt)
        if not compare_digest(mine, commitment):
            raise VerifyError(
                "side manifest: key commitment does not match, want the master key it was made with"
            )
        try:
            body = key.decrypt(_NONCE, data[_SIZE:], data[:_SIZE])
        except InvalidTag:
            raise VerifyError("side manifest: tag does not verify") from None
        return cls._parse_body(body, epoch=epoch, root=root)

    def seal(self, *, master_key: Octets, salt: bytes, volume_id: bytes) -> bytes:
        """The bytes of the file. `salt` is 32 fresh random bytes, `volume_id` 16."""
        if len(salt) != SIDE_SALT_SIZE or len(volume_id) != VOLUME_ID_SIZE:
            raise FormatError(
                f"side manifest: want a salt of {SIDE_SALT_SIZE} bytes, a volume id of {VOLUME_ID_SIZE}"
            )
        commitment, key = _keys(master_key, salt)
        clear = _LAYOUT.pack(MAGIC, VERSION, SUITE, bytes(5), self.epoch, volume_id, salt, commitment)
        data = clear + key.encrypt(_NONCE, self._pack_body(), clear)
        if len(data) > MAX_SIDE:
            raise FormatError(f"side manifest: {len(data)} bytes, want at most {MAX_SIDE}")
        return data

    def _pack_body(self) -> bytes:
        table = pack_json(
            {
                "name": self.name,
                "flags": [str(flag) for flag in sorted(self.flags)],
                "long_name_max": self.long_name_max,
                "entries": [pack_entry(entry) for entry in self.entries],
            }
        )
        if len(table) > MAX_TABLE:
            raise FormatError(f"side manifest: a table of {len(table)} bytes, want at most {MAX_TABLE}")
        return _LENGTH.pack(len(table)) + table + self.digests

    @classmethod
    def _parse_body(cls, body: bytes, *, epoch: int, root: bytes) -> Self:
        length = _LENGTH.unpack_from(body)[0] if len(body) >= _LENGTH.size else MAX_TABLE + 1
        rest = body[_LENGTH.size + length :]
        if length > MAX_TABLE or _LENGTH.size + length + len(rest) != len(body):
            raise FormatError("side manifest: its table is longer than the body")
        raw = parse_json(
            body[_LENGTH.size : _LENGTH.size + length],
            "side manifest",
            max_bytes=MAX_TABLE,
            max_values=MAX_TABLE // 8,
        )
        if not isinstance(raw, dict) or set(raw) != {"name", "flags", "long_name_max", "entries"}:
            raise FormatError(
                "side manifest: want exactly the members name, flags, long_name_max and entries"
            )
        name, flags, limit, rows = raw["name"], raw["flags"], raw["long_name_max"], raw["entries"]
        if not isinstance(name, str) or type(limit) is not int or not isinstance(rows, list):
            raise FormatError("side manifest: name wants text, long_name_max a whole number, entries a list")
        return cls(
            epoch=epoch,
            name=name,
            flags=_parse_flags(flags),
            long_name_max=limit,
            entries=tuple(map(parse_entry, rows)),
            digests=rest,
            root=root,
        )


def side_root(data: bytes) -> bytes:
    """The 32 bytes that name one state of one volume: SHA-256 of the whole side manifest."""
    return sha256(data).digest()


def pin_digest(pins: bytes) -> bytes:
    """The digest of one MiB, from the pins of its blocks."""
    return sha256(pins).digest()


def _parse_clear(data: bytes) -> tuple[int, bytes, bytes]:
    magic, version, suite, reserved, epoch, _, salt, commitment = _LAYOUT.unpack(data)
    if magic != MAGIC:
        raise FormatError(f"side manifest: magic is {magic.hex()}, want {MAGIC.hex()}")
    if version != VERSION:
        raise FormatError(f"side manifest: version is {version}, want {VERSION}")
    if suite != SUITE:
        raise FormatError(f"side manifest: suite is {suite}, want {SUITE}")
    if any(reserved):
        raise FormatError(f"side manifest: bytes [11:16] are {reserved.hex()}, want zero")
    if not 1 <= epoch <= MAX_EPOCH:
        raise FormatError(f"side manifest: epoch is {epoch}, want 1..{MAX_EPOCH}")
    return epoch, salt, commitment


def _keys(master_key: Octets, salt: bytes) -> tuple[bytes, AESGCM]:
    if (length := memoryview(master_key).nbytes) != KEY_SIZE:
        raise FormatError(f"master key: got {length} bytes, want {KEY_SIZE}")
    prk = HKDF.extract(SHA256(), salt, master_key)
    commitment = HKDFExpand(SHA256(), KEY_SIZE, _LABEL + b"commitment").derive(prk)
    return commitment, AESGCM(HKDFExpand(SHA256(), KEY_SIZE, _LABEL + b"side").derive(prk))


def _parse_flags(raw: JSON) -> frozenset[Flag]:
    words: Sequence[JSON] = raw if isinstance(raw, list) else [None]
    flags = frozenset(Flag(word) for word in words if isinstance(word, str) and word in {*Flag})
    if [str(flag) for flag in sorted(flags)] != words:
        raise FormatError("side manifest: flags want a sorted list of feature flags, each once")
    return flags
