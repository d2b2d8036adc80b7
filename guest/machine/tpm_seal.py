"""A secret that this TPM gives back only while the machine runs the programs it ran when the secret was made.

It is sealed under the storage key of the owner's hierarchy, with no way in but the policy that the registers of
firmware, boot loader, kernel and its command line have the values they had; and it is kept in the TPM itself, because
the disk is the host's. Settings of the board (registers 1, 3, 5 and 6) may change, and what moves at run time (8 of
init-data, 10, 15 of the event log) is left out.

Its register values alone would let a system that ran here before leave a secret of its own choice for ours, since what
the registers will be is no secret. So the TPM also says, by the ticket of its making, what they were at that moment.
The ticket is kept in an NV index: it is worth nothing with another secret, and changing it only loses this one.

As good as the TPM: one that the host emulates keeps nothing from the host.

Source: TCG TPM 2.0 Library, Part 1 section 19.7 (policy sessions), Part 3 sections 11.1 (StartAuthSession), 12.1
(Create), 12.2 (Load), 12.7 (Unseal), 18.3 (CertifyCreation), 23.7 (PolicyPCR) and 24.1 (CreatePrimary).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from secrets import token_bytes
from typing import Final

from guest.machine.tpm import TPM, TPM_ALG_SHA256, TPM_ST_NO_SESSIONS, TPM_ST_SESSIONS, selected, told
from guest.machine.tpm_nv import TPM_RH_OWNER, is_there, keep, read_index, write_index
from guest.machine.tpm_quote import TPM_ALG_NULL, TPM_CC_CREATE_PRIMARY, TPM_CC_FLUSH_CONTEXT
from strongroom.errors import MachineError, PolicyError
from strongroom.wire.reader import Reader

HANDLE: Final = 0x81027373  # in the range that is the owner's to use
BIRTH: Final = 0x01827373  # NV index: what the TPM said of the making, and its ticket for that
PROGRAMS: Final = frozenset({0, 2, 4, 7, 9, 11, 12, 13, 14})
MAX_SECRET: Final = 128  # bytes that every TPM seals

TPM_CC_CERTIFY_CREATION: Final = 0x14A
TPM_CC_CREATE: Final = 0x153
TPM_CC_LOAD: Final = 0x157
TPM_CC_UNSEAL: Final = 0x15E
TPM_CC_START_AUTH_SESSION: Final = 0x176
TPM_CC_POLICY_PCR: Final = 0x17F
TPM_RH_NULL: Final = 0x40000007
TPM_SE_POLICY: Final = 0x01
_POLICY_FAIL: Final = "0x99d"  # TPM_RC_POLICY_FAIL of the first session
_TICKET: Final = "0x4e0"  # TPM_RC_TICKET of the fourth parameter
_NONCE: Final = 32  # bytes

_STORAGE_KEY: Final = bytes.fromhex(
    "0023"  # type ECC
    "000b"  # names by SHA-256
    "00030472"  # fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA restricted decrypt
    "0000"  # no policy
    "000600800043"  # AES-128, CFB
    "0010"  # no scheme
    "0003"  # NIST P-256
    "0010"  # no key derivation
    "00000000"  # unique: empty x, empty y
)
_SEALED: Final = bytes.fromhex("0008000b00000412")  # keyed hash; SHA-256; fixedTPM fixedParent noDA


def kept_secret(tpm: TPM, new: bytes, *, handle: int = HANDLE) -> bytes:
    """The secret that is sealed in this TPM; `new`, which then is, where there was none.

    Raises PolicyError when it was sealed to other programs than those that run, or by others: it stays where it is.
    """
    if not is_there(tpm, handle):
        _seal(tpm, new, handle)
    secret = _unseal(tpm, handle)
    _require_born_here(tpm, handle)
    return secret


def policy_digest(tpm: TPM) -> bytes:
    """What a policy session has in it once the registers were compared with what they are now."""
    return sha256(bytes(32) + _u32(TPM_CC_POLICY_PCR) + selected(PROGRAMS) + _values(tpm)).digest()


def _values(tpm: TPM) -> bytes:
    return sha256(b"".join(tpm.read(index) for index in sorted(PROGRAMS))).digest()


def _seal(tpm: TPM, secret: bytes, lasting: int) -> None:
    if not 0 < len(secret) <= MAX_SECRET:
        raise MachineError(f"tpm seal: {len(secret)} bytes, want 1..{MAX_SECRET}")
    public = _SEALED + _sized(policy_digest(tpm)) + _u16(TPM_ALG_NULL) + _sized(b"")
    sensitive = _sized(b"") + _sized(secret)
    with _storage_key(tpm) as parent:
        parameters = _sized(sensitive) + _sized(public) + _sized(b"") + selected(PROGRAMS)
        made = tpm.authorised(TPM_CC_CREATE, _u32(parent), parameters, "create").parameters
        with told("create"):
            private, public, birth = _take(made), _take(made), _take(made)
            _take(made)  # the digest of the last
            ticket = made.rest()
        loaded = tpm.authorised(
            TPM_CC_LOAD, _u32(parent), _sized(private) + _sized(public), "load", makes=True
        )
        with _flushed(tpm, loaded.handle or 0) as handle:
            write_index(tpm, BIRTH, _sized(birth) + ticket)
            keep(tpm, handle, lasting)


def _require_born_here(tpm: TPM, handle: int) -> None:
    """Raise PolicyError unless this TPM made it while the registers were what they are now."""
    what = "certify_creation"
    if (kept := read_index(tpm, BIRTH)) is None:
        raise PolicyError("tpm: nothing says which programs sealed its secret, want the ticket of its making")
    with told(what):
        reader = Reader(kept, f"tpm {what}")
        birth, ticket = _take(reader), reader.rest()
    parameters = _sized(b"") + _sized(sha256(birth).digest()) + _u16(TPM_ALG_NULL) + ticket
    handles = _u32(TPM_RH_NULL) + _u32(handle)  # nobody has to sign: the TPM answers us, or refuses
    try:
        tpm.authorised(TPM_CC_CERTIFY_CREATION, handles, parameters, what)
    except MachineError as error:
        if _TICKET not in str(error):
            raise
        raise PolicyError("tpm: the ticket is of another secret's making than the one it keeps") from None
    if not birth.startswith(selected(PROGRAMS) + _sized(_values(tpm))):
        raise PolicyError(
            "tpm: its secret was made while other programs ran, want the same firmware and image"
        )


def _unseal(tpm: TPM, handle: int) -> bytes:
    what = f"unseal 0x{handle:08x}"
    with _session(tpm) as session:
        body = _u32(session) + _sized(b"") + selected(PROGRAMS)  # compared with the policy, not with us
        with told("policy_pcr"):
            tpm.command(TPM_ST_NO_SESSIONS, TPM_CC_POLICY_PCR, body, "policy_pcr").end()
        # The session lasts on whatever happens, so that it is always ours to end.
        authorisation = _u32(session) + _sized(b"") + b"\x01" + _sized(b"")
        body = _u32(handle) + _u32(len(authorisation)) + authorisation
        try:
            with told(what):
                response = tpm.command(TPM_ST_SESSIONS, TPM_CC_UNSEAL, body, what)
                parameters = Reader(response.take(response.u32be()), f"tpm {what}")
                secret = _take(parameters)
                parameters.end()
        except MachineError as error:
            if _POLICY_FAIL not in str(error):
                raise
            raise PolicyError(
                "tpm: its secret was sealed by other programs than those that run, want the same firmware and image"
            ) from None
    return secret


@contextmanager
def _storage_key(tpm: TPM) -> Iterator[int]:
    parameters = _sized(bytes(4)) + _sized(_STORAGE_KEY) + _sized(b"") + bytes(4)
    made = tpm.authorised(TPM_CC_CREATE_PRIMARY, _u32(TPM_RH_OWNER), parameters, "create_primary", makes=True)
    with _flushed(tpm, made.handle or 0) as handle:
        yield handle


@contextmanager
def _session(tpm: TPM) -> Iterator[int]:
    """A policy session that nobody's key protects: what it authorises is decided by the registers alone."""
    what = "start_auth_session"
    body = _u32(TPM_RH_NULL) + _u32(TPM_RH_NULL) + _sized(token_bytes(_NONCE)) + _sized(b"")
    body += bytes((TPM_SE_POLICY,)) + _u16(TPM_ALG_NULL) + _u16(TPM_ALG_SHA256)
    with told(what):
        response = tpm.command(TPM_ST_NO_SESSIONS, TPM_CC_START_AUTH_SESSION, body, what)
        session = response.u32be()
        _take(response)  # the TPM's nonce
        response.end()
    with _flushed(tpm, session):
        yield session


@contextmanager
def _flushed(tpm: TPM, handle: int) -> Iterator[int]:
    try:
        yield handle
    finally:
        with suppress(MachineError):  # a TPM that forgets it by itself must not hide what happened inside
            tpm.command(TPM_ST_NO_SESSIONS, TPM_CC_FLUSH_CONTEXT, _u32(handle), "flush_context").end()


def _take(reader: Reader) -> bytes:
    return reader.take(reader.u16be())


def _sized(data: bytes) -> bytes:
    return _u16(len(data)) + data


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")
