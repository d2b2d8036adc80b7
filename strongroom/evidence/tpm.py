"""What a TPM 2.0 signs and says of its keys: a quote, a signature and a public area, each with one encoding.

All numbers are big-endian. A field keeps the name its specification gives it, in our spelling.

Source: TCG TPM 2.0 Library, Part 2: 10.6.1 (TPMS_PCR_SELECTION), 10.12.8 (TPMS_ATTEST), 11.3.4
(TPMT_SIGNATURE), 12.2.4 (TPMT_PUBLIC).
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from hashlib import new as new_hash
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

PCR_COUNT: Final = 24  # of the PC client profile; a selection is always three bytes wide
TPM_GENERATED: Final = 0xFF544347
TPM_ST_ATTEST_QUOTE: Final = 0x8018
MAX_SELECTIONS: Final = 16  # banks, HASH_COUNT of every TPM we know
MAX_SIGNATURE: Final = 512  # bytes of one number: RSA-4096
_SELECT_SIZE: Final = PCR_COUNT // 8
_MAX_NAME: Final = 2 + 64  # TPM2B_NAME and TPM2B_DATA hold at most a TPMT_HA with SHA-512
_TPM_ALG_NULL: Final = 0x10
DEFAULT_EXPONENT: Final = 65537  # which a public area writes as zero


class Hash(IntEnum):
    """TPM_ALG_ID of the hashes we know: of a PCR bank, of a signature, of a name."""

    SHA1 = 0x04
    SHA256 = 0x0B
    SHA384 = 0x0C
    SHA512 = 0x0D

    @property
    def size(self) -> int:
        return _HASH_SIZES[self]

    def digest(self, data: bytes) -> bytes:
        return new_hash(self.name.lower(), data, usedforsecurity=False).digest()

    def __str__(self) -> str:
        return self.name.lower()


_HASH_SIZES: Final = {Hash.SHA1: 20, Hash.SHA256: 32, Hash.SHA384: 48, Hash.SHA512: 64}


class Scheme(IntEnum):
    """TPM_ALG_ID of the signature schemes an attestation key may have."""

    RSASSA = 0x14
    RSAPSS = 0x16
    ECDSA = 0x18


class Curve(IntEnum):
    """TPM_ECC_CURVE."""

    P256 = 0x03
    P384 = 0x04

    @property
    def size(self) -> int:
        """Bytes of a coordinate."""
        return 32 if self is Curve.P256 else 48


class Attributes(IntFlag):
    """TPMA_OBJECT. Bits without a name here are reserved and must be zero."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    FIRMWARE_LIMITED = 1 << 8
    SVN_LIMITED = 1 << 9
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


_KNOWN_ATTRIBUTES: Final = sum(Attributes)


@dataclass(frozen=True, slots=True)
class PCRSelection:
    """TPMS_PCR_SELECTION: some PCRs of one bank. Bit i of byte j stands for PCR 8j + i."""

    bank: Hash
    pcrs: frozenset[int]

    def __post_init__(self) -> None:
        if not self.pcrs <= frozenset(range(PCR_COUNT)):
            raise FormatError(f"pcr selection: {sorted(self.pcrs)}, want numbers 0..{PCR_COUNT - 1}")

    @classmethod
    def read(cls, reader: Reader) -> Self:
        bank = _hash(reader.u16be(), "pcr selection")
        if (size := reader.u8()) != _SELECT_SIZE:
            raise FormatError(f"pcr selection: bitmap of {size} bytes, want {_SELECT_SIZE}")
        bitmap = int.from_bytes(reader.take(size), "little")
        return cls(bank, frozenset(pcr for pcr in range(PCR_COUNT) if bitmap >> pcr & 1))

    def pack(self) -> bytes:
        bitmap = sum(1 << pcr for pcr in self.pcrs)
        return _be(self.bank, 2) + _be(_SELECT_SIZE, 1) + bitmap.to_bytes(_SELECT_SIZE, "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class TPMQuote:
    """TPMS_ATTEST of type quote: which PCRs, the digest over them, and the caller's nonce in `extra_data`."""

    qualified_signer: bytes
    extra_data: bytes
    clock: int  # milliseconds the TPM has been powered
    reset_count: int  # power cycles since the TPM was last cleared
    restart_count: int  # resumes since the last power cycle
    safe: bool  # no higher clock was ever reported
    firmware_version: int
    pcr_select: tuple[PCRSelection, ...]
    pcr_digest: bytes

    def __post_init__(self) -> None:
        for name, most in (("qualified_signer", _MAX_NAME), ("extra_data", _MAX_NAME), ("pcr_digest", 64)):
            if (found := len(getattr(self, name))) > most:
                raise FormatError(f"tpm quote: {name} is {found} bytes, want at most {most}")
        for name, size in (("clock", 8), ("reset_count", 4), ("restart_count", 4), ("firmware_version", 8)):
            if not 0 <= getattr(self, name) < 1 << 8 * size:
                raise FormatError(f"tpm quote: {name} does not fit {size} bytes")
        if len(self.pcr_select) > MAX_SELECTIONS:
            raise FormatError(
                f"tpm quote: {len(self.pcr_select)} pcr selections, want at most {MAX_SELECTIONS}"
            )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a quote to its last byte, or raise FormatError naming the first broken rule."""
        reader = Reader(data, "tpm quote")
        if (magic := reader.u32be()) != TPM_GENERATED:
            raise FormatError(f"tpm quote: magic is 0x{magic:08x}, want 0x{TPM_GENERATED:08x}")
        if (kind := reader.u16be()) != TPM_ST_ATTEST_QUOTE:
            raise FormatError(f"tpm quote: type is 0x{kind:04x}, want 0x{TPM_ST_ATTEST_QUOTE:04x}")
        quote = cls(
            qualified_signer=_sized(reader),
            extra_data=_sized(reader),
            clock=reader.u64be(),
            reset_count=reader.u32be(),
            restart_count=reader.u32be(),
            safe=_yes_no(reader.u8()),
            firmware_version=reader.u64be(),
            pcr_select=_selections(reader),
            pcr_digest=_sized(reader),
        )
        reader.end()
        return quote

    def pack(self) -> bytes:
        """The bytes under the signature."""
        return b"".join(
            (
                _be(TPM_GENERATED, 4),
                _be(TPM_ST_ATTEST_QUOTE, 2),
                _with_size(self.qualified_signer),
                _with_size(self.extra_data),
                _be(self.clock, 8),
                _be(self.reset_count, 4),
                _be(self.restart_count, 4),
                _be(self.safe, 1),
                _be(self.firmware_version, 8),
                _be(len(self.pcr_select), 4),
                *(selection.pack() for selection in self.pcr_select),
                _with_size(self.pcr_digest),
            )
        )


@dataclass(frozen=True, slots=True)
class TPMSignature:
    """TPMT_SIGNATURE: one number for RSA, two (r and s, of any length) for ECDSA.

    Azure ships the bare RSA number: TPMSignature(Scheme.RSASSA, Hash.SHA256, (number,)).
    """

    scheme: Scheme
    hash: Hash
    numbers: tuple[bytes, ...]

    def __post_init__(self) -> None:
        want = 2 if self.scheme is Scheme.ECDSA else 1
        if len(self.numbers) != want:
            raise FormatError(f"tpm signature: {len(self.numbers)} numbers, want {want}")
        for number in self.numbers:
            if not 0 < len(number) <= MAX_SIGNATURE:
                raise FormatError(f"tpm signature: number of {len(number)} bytes, want 1..{MAX_SIGNATURE}")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        reader = Reader(data, "tpm signature")
        scheme = _scheme(reader.u16be(), "tpm signature")
        algorithm = _hash(reader.u16be(), "tpm signature")
        numbers = tuple(_sized(reader) for _ in range(2 if scheme is Scheme.ECDSA else 1))
        reader.end()
        return cls(scheme, algorithm, numbers)

    def pack(self) -> bytes:
        return _be(self.scheme, 2) + _be(self.hash, 2) + b"".join(map(_with_size, self.numbers))


@dataclass(frozen=True, slots=True, kw_only=True)
class TPMPublic:
    """TPMT_PUBLIC of an RSA or ECC key that signs; a storage or decryption key is not read.

    `scheme` and `hash` are None where the key leaves them to each signature. `unique` is the modulus, or the
    two coordinates; `curve` is None for RSA.
    """

    name_alg: Hash
    attributes: Attributes
    auth_policy: bytes
    scheme: Scheme | None
    hash: Hash | None
    curve: Curve | None
    key_bits: int  # RSA: size of the modulus; ECC: 0
    exponent: int  # RSA: 0 stands for 65537; ECC: 0
    unique: tuple[bytes, ...]

    _RSA = 0x0001
    _ECC = 0x0023

    def __post_init__(self) -> None:
        if self.attributes & ~_KNOWN_ATTRIBUTES:
            raise FormatError(f"tpm key: attributes are 0x{self.attributes:x}, want no reserved bits")
        if len(self.auth_policy) > 64:
            raise FormatError(f"tpm key: policy of {len(self.auth_policy)} bytes, want at most 64")
        if (self.scheme is None) != (self.hash is None):
            raise FormatError("tpm key: scheme and hash, want both or neither")
        if self.scheme is not None and (self.scheme is Scheme.ECDSA) != (self.curve is not None):
            raise FormatError(f"tpm key: scheme {self.scheme.name} does not fit the kind of key")
        if self.curve is None:
            self._check_rsa()
        elif (self.key_bits, self.exponent) != (0, 0) or [len(u) for u in self.unique] != (
            2 * [self.curve.size]
        ):
            raise FormatError(f"tpm key: want two coordinates of {self.curve.size} bytes")

    def _check_rsa(self) -> None:
        if self.key_bits not in (2048, 3072, 4096):
            raise FormatError(f"tpm key: {self.key_bits} bits, want 2048, 3072 or 4096")
        if [len(u) for u in self.unique] != [self.key_bits // 8] or not self.unique[0][0] & 0x80:
            raise FormatError(f"tpm key: modulus is not of {self.key_bits} bits")
        if self.exponent and not (self.exponent & 1 and 3 <= self.exponent < 1 << 32):
            raise FormatError(f"tpm key: exponent is {self.exponent}, want 0 or an odd number")

    @property
    def name(self) -> bytes:
        """The key's name: algorithm and digest of its public area."""
        return _be(self.name_alg, 2) + self.name_alg.digest(self.pack())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        reader = Reader(data, "tpm key")
        kind = reader.u16be()
        if kind not in (cls._RSA, cls._ECC):
            raise FormatError(f"tpm key: type is 0x{kind:04x}, want RSA or ECC")
        name_alg = _hash(reader.u16be(), "tpm key")
        attributes = Attributes(reader.u32be())
        auth_policy = _sized(reader)
        if (symmetric := reader.u16be()) != _TPM_ALG_NULL:
            raise FormatError(
                f"tpm key: symmetric algorithm 0x{symmetric:04x}, want none of a key that signs"
            )
        scheme, algorithm = _key_scheme(reader)
        key_bits, exponent, curve = 0, 0, None
        if kind == cls._RSA:
            key_bits, exponent = reader.u16be(), reader.u32be()
        else:
            curve = _curve(reader.u16be())
            if (kdf := reader.u16be()) != _TPM_ALG_NULL:
                raise FormatError(f"tpm key: key derivation 0x{kdf:04x}, want none")
        unique = tuple(_sized(reader) for _ in range(1 if curve is None else 2))
        reader.end()
        return cls(
            name_alg=name_alg,
            attributes=attributes,
            auth_policy=auth_policy,
            scheme=scheme,
            hash=algorithm,
            curve=curve,
            key_bits=key_bits,
            exponent=exponent,
            unique=unique,
        )

    def pack(self) -> bytes:
        if self.curve is None:
            kind, shape = self._RSA, _be(self.key_bits, 2) + _be(self.exponent, 4)
        else:
            kind, shape = self._ECC, _be(self.curve, 2) + _be(_TPM_ALG_NULL, 2)
        if self.scheme is None or self.hash is None:
            scheme = _be(_TPM_ALG_NULL, 2)
        else:
            scheme = _be(self.scheme, 2) + _be(self.hash, 2)
        return b"".join(
            (
                _be(kind, 2),
                _be(self.name_alg, 2),
                _be(self.attributes, 4),
                _with_size(self.auth_policy),
                _be(_TPM_ALG_NULL, 2),
                scheme,
                shape,
                *map(_with_size, self.unique),
            )
        )


def _selections(reader: Reader) -> tuple[PCRSelection, ...]:
    if (count := reader.u32be()) > MAX_SELECTIONS:
        raise FormatError(f"tpm quote: {count} pcr selections, want at most {MAX_SELECTIONS}")
    return tuple(PCRSelection.read(reader) for _ in range(count))


def _key_scheme(reader: Reader) -> tuple[Scheme, Hash] | tuple[None, None]:
    if (value := reader.u16be()) == _TPM_ALG_NULL:
        return None, None
    return _scheme(value, "tpm key"), _hash(reader.u16be(), "tpm key")


def _hash(value: int, subject: str) -> Hash:
    if value not in {*Hash}:
        raise FormatError(f"{subject}: hash is 0x{value:04x}, want sha1, sha256, sha384 or sha512")
    return Hash(value)


def _scheme(value: int, subject: str) -> Scheme:
    if value not in {*Scheme}:
        raise FormatError(f"{subject}: scheme is 0x{value:04x}, want RSASSA, RSAPSS or ECDSA")
    return Scheme(value)


def _curve(value: int) -> Curve:
    if value not in {*Curve}:
        raise FormatError(f"tpm key: curve is 0x{value:04x}, want P-256 or P-384")
    return Curve(value)


def _yes_no(value: int) -> bool:
    if value not in (0, 1):
        raise FormatError(f"tpm quote: safe is {value}, want 0 or 1")
    return bool(value)


def _sized(reader: Reader) -> bytes:
    return reader.take(reader.u16be())


def _with_size(data: bytes) -> bytes:
    return _be(len(data), 2) + data


def _be(value: int, size: int) -> bytes:
    return int(value).to_bytes(size, "big")
