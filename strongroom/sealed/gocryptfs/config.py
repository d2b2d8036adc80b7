"""gocryptfs.conf: which ciphers and name rules a volume uses, and its master key, wrapped under a password.

JSON, in the root of the cipher directory. It is not authenticated as a whole: whoever stores it can change a flag,
but not make a reader accept contents under another flag, because every cipher has a key of its own.
Source: gocryptfs, internal/configfile.
"""

import json
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final, Self, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.errors import FormatError, VerifyError
from strongroom.sealed.gocryptfs.kdf import GCM_CONTENT, KEY_SIZE, Scrypt, expand
from strongroom.sealed.keys import Octets
from strongroom.wire.canonical import JSON, b64, parse_json, unb64

FILE_NAME: Final = b"gocryptfs.conf"
REVERSE_FILE_NAME: Final = b".gocryptfs.reverse.conf"  # what it is called beside plain files
MAX_CONFIG: Final = 64 << 10  # bytes
VERSION: Final = 2
LONGEST_NAME: Final = 255  # bytes that a name on disk may have
SHORTEST_LIMIT: Final = 62  # bytes of a hashed name: a lower limit could not be kept
_NO_BLOCK: Final = bytes(8)  # associated data of what belongs to no file
_Value = TypeVar("_Value")


class Flag(StrEnum):
    """A feature a volume uses; the spelling is that of the file."""

    PLAINTEXT_NAMES = "PlaintextNames"
    DIR_IV = "DirIV"
    EME_NAMES = "EMENames"
    GCM_IV_128 = "GCMIV128"
    LONG_NAMES = "LongNames"
    LONG_NAME_MAX = "LongNameMax"
    AES_SIV = "AESSIV"
    RAW_64 = "Raw64"
    HKDF = "HKDF"
    FIDO2 = "FIDO2"
    XCHACHA = "XChaCha20Poly1305"


DEFAULT_FLAGS: Final = frozenset(
    {Flag.GCM_IV_128, Flag.HKDF, Flag.DIR_IV, Flag.EME_NAMES, Flag.LONG_NAMES, Flag.RAW_64}
)
_NAME_RULES: Final = frozenset(
    {Flag.DIR_IV, Flag.EME_NAMES, Flag.LONG_NAMES, Flag.LONG_NAME_MAX, Flag.RAW_64}
)


class Cipher(Enum):
    """What seals the blocks of files."""

    AES_GCM = "AES-256-GCM"
    AES_SIV = "AES-SIV-512"
    XCHACHA = "XChaCha20-Poly1305"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A gocryptfs.conf whose flags agree with each other. `fido2` is kept as it was found."""

    flags: frozenset[Flag] = DEFAULT_FLAGS
    long_name_max: int = LONGEST_NAME
    scrypt: Scrypt
    encrypted_key: bytes = field(repr=False)
    creator: str = "strongroom"
    fido2: JSON = None

    def __post_init__(self) -> None:
        check_flags(self.flags, self.long_name_max)
        want = (16 if self.hkdf else 12) + KEY_SIZE + 16
        if len(self.encrypted_key) != want:
            raise FormatError(f"gocryptfs.conf: EncryptedKey is {len(self.encrypted_key)} bytes, want {want}")
        if (Flag.FIDO2 in self.flags) is not (self.fido2 is not None):
            raise FormatError("gocryptfs.conf: FIDO2 needs both its flag and its value")

    @property
    def cipher(self) -> Cipher:
        if Flag.XCHACHA in self.flags:
            return Cipher.XCHACHA
        return Cipher.AES_SIV if Flag.AES_SIV in self.flags else Cipher.AES_GCM

    @property
    def hkdf(self) -> bool:
        """Whether each purpose has a key of its own; volumes made before version 1.3 share one."""
        return Flag.HKDF in self.flags

    @property
    def plaintext_names(self) -> bool:
        return Flag.PLAINTEXT_NAMES in self.flags

    @property
    def directory_ivs(self) -> bool:
        """Whether every directory holds a gocryptfs.diriv; if not, the IV of all is zero."""
        return Flag.DIR_IV in self.flags

    @property
    def long_names(self) -> bool:
        return Flag.LONG_NAMES in self.flags

    @property
    def raw64(self) -> bool:
        """Whether base64 goes without padding."""
        return Flag.RAW_64 in self.flags

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a whole gocryptfs.conf, or raise FormatError naming the first member that is wrong."""
        raw = parse_json(data, "gocryptfs.conf", max_bytes=MAX_CONFIG, max_depth=6)
        members = dict(_typed(raw, dict, "gocryptfs.conf"))
        if (version := _take(members, "Version", int)) != VERSION:
            raise FormatError(f"gocryptfs.conf: Version is {version}, want {VERSION}")
        settings = cls(
            creator=_take(members, "Creator", str),
            encrypted_key=unb64(_take(members, "EncryptedKey", str), "gocryptfs.conf: EncryptedKey"),
            scrypt=_parse_scrypt(dict(_take(members, "ScryptObject", dict))),
            flags=_parse_flags(_take(members, "FeatureFlags", list)),
            fido2=members.pop("FIDO2", None),
            long_name_max=_take(members, "LongNameMax", int) if "LongNameMax" in members else LONGEST_NAME,
        )
        if members:
            raise FormatError(f"gocryptfs.conf: unknown member {min(members)[:64]!a}")
        return settings

    def pack(self) -> bytes:
        """The file as gocryptfs itself lays it out."""
        members: dict[str, JSON] = {
            "Creator": self.creator,
            "EncryptedKey": b64(self.encrypted_key),
            "ScryptObject": {
                "Salt": b64(self.scrypt.salt),
                "N": self.scrypt.n,
                "R": self.scrypt.r,
                "P": self.scrypt.p,
                "KeyLen": KEY_SIZE,
            },
            "Version": VERSION,
            "FeatureFlags": [str(flag) for flag in Flag if flag in self.flags],
        }
        if self.fido2 is not None:
            members["FIDO2"] = self.fido2
        if Flag.LONG_NAME_MAX in self.flags:
            members["LongNameMax"] = self.long_name_max
        return json.dumps(members, indent="\t").encode() + b"\n"


def check_flags(flags: frozenset[Flag], long_name_max: int) -> None:
    """Raise FormatError unless some gocryptfs makes volumes with exactly these flags."""

    def refuse(sentence: str) -> FormatError:
        return FormatError(f"gocryptfs.conf: {sentence}")

    if Flag.XCHACHA in flags:
        if flags & {Flag.GCM_IV_128, Flag.AES_SIV}:
            raise refuse("XChaCha20Poly1305 goes with neither GCMIV128 nor AESSIV")
        if Flag.HKDF not in flags:
            raise refuse("XChaCha20Poly1305 needs HKDF")
    elif Flag.GCM_IV_128 not in flags:
        raise refuse("AES needs GCMIV128; volumes from before version 0.7 are not read")
    if Flag.PLAINTEXT_NAMES in flags:
        if clash := flags & _NAME_RULES:
            raise refuse(f"PlaintextNames goes without {min(clash)}")
    elif Flag.EME_NAMES not in flags:
        raise refuse("want EMENames or PlaintextNames")
    if Flag.LONG_NAME_MAX in flags:
        if not SHORTEST_LIMIT <= long_name_max <= LONGEST_NAME or Flag.LONG_NAMES not in flags:
            raise refuse(
                f"LongNameMax is {long_name_max}, want {SHORTEST_LIMIT}..{LONGEST_NAME} and LongNames"
            )
    elif long_name_max != LONGEST_NAME:
        raise refuse(f"LongNameMax is {long_name_max} without its flag")


def unlock(settings: Settings, password: Octets) -> bytes:
    """The 32 bytes of the master key; VerifyError for another password or a changed file."""
    key, split = _wrapping(settings.scrypt, password, hkdf=settings.hkdf)
    nonce, sealed = settings.encrypted_key[:split], settings.encrypted_key[split:]
    try:
        return key.decrypt(nonce, sealed, _NO_BLOCK)
    except InvalidTag:
        raise VerifyError("gocryptfs.conf: password does not open the master key") from None


def make(
    *,
    master_key: Octets,
    password: Octets,
    scrypt: Scrypt,
    nonce: bytes,
    flags: frozenset[Flag] = DEFAULT_FLAGS,
    long_name_max: int = LONGEST_NAME,
) -> Settings:
    """Settings of a new volume. `nonce` is 16 random bytes, or 12 without HKDF."""
    if (length := memoryview(master_key).nbytes) != KEY_SIZE:
        raise FormatError(f"master key: got {length} bytes, want {KEY_SIZE}")
    key, want = _wrapping(scrypt, password, hkdf=Flag.HKDF in flags)
    if len(nonce) != want:
        raise FormatError(f"gocryptfs.conf: nonce is {len(nonce)} bytes, want {want}")
    sealed = nonce + key.encrypt(nonce, master_key, _NO_BLOCK)
    return Settings(flags=flags, long_name_max=long_name_max, scrypt=scrypt, encrypted_key=sealed)


def _wrapping(scrypt: Scrypt, password: Octets, *, hkdf: bool) -> tuple[AESGCM, int]:
    guard = scrypt.derive(password)
    return (AESGCM(expand(guard, GCM_CONTENT, KEY_SIZE)), 16) if hkdf else (AESGCM(guard), 12)


def _parse_scrypt(raw: dict[str, JSON]) -> Scrypt:
    salt = unb64(_take(raw, "Salt", str), "gocryptfs.conf: Salt")
    n, r, p, length = (_take(raw, key, int) for key in ("N", "R", "P", "KeyLen"))
    if length != KEY_SIZE:
        raise FormatError(f"gocryptfs.conf: KeyLen is {length}, want {KEY_SIZE}")
    if raw:
        raise FormatError(f"gocryptfs.conf: unknown member {min(raw)[:64]!a} of ScryptObject")
    return Scrypt(salt=salt, n=n, r=r, p=p)


def _parse_flags(raw: list[JSON]) -> frozenset[Flag]:
    flags = set[Flag]()
    for word in raw:
        if not isinstance(word, str) or word not in {*Flag}:
            raise FormatError(f"gocryptfs.conf: feature flag {str(word)[:64]!a} is not known")
        flags.add(Flag(word))
    if len(flags) != len(raw):
        raise FormatError("gocryptfs.conf: a feature flag is there twice")
    return frozenset(flags)


def _take(members: dict[str, JSON], key: str, kind: type[_Value]) -> _Value:
    if key not in members:
        raise FormatError(f"gocryptfs.conf: {key} is missing")
    return _typed(members.pop(key), kind, f"gocryptfs.conf: {key}")


def _typed(value: JSON, kind: type[_Value], at: str) -> _Value:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise FormatError(f"{at} is {type(value).__name__}, want {kind.__name__}")
    return value
