"""An attestation key in a TPM, and quotes by it: PCR values signed together with a nonce.

The key is a primary key of the endorsement hierarchy, made from a template: a TPM makes the same key from it each time
until it is cleared. Where a cloud left a template of its own, or a key, that is used instead.

Source: TCG TPM 2.0 Library, Part 3 sections 12.4 (ReadPublic), 18.4 (Quote), 24.1 (CreatePrimary), 28.4 (FlushContext).
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from guest.machine.tpm import TPM, TPM_ST_NO_SESSIONS, selected, told
from strongroom.errors import MachineError
from strongroom.evidence.tpm import TPMPublic, TPMQuote, TPMSignature
from strongroom.evidence.vtpm import TPMEvidence
from strongroom.wire.reader import Reader

AZURE_KEY: Final = 0x81000003  # where Azure's paravisor keeps the key that its report vouches for

TPM_CC_CREATE_PRIMARY: Final = 0x131
TPM_CC_QUOTE: Final = 0x158
TPM_CC_FLUSH_CONTEXT: Final = 0x165
TPM_CC_READ_PUBLIC: Final = 0x173
TPM_RH_ENDORSEMENT: Final = 0x4000000B
TPM_ALG_NULL: Final = 0x0010
MAX_NONCE: Final = 64  # bytes; every TPM takes 32 of them, and more where it knows a hash that long
_ATTEMPTS: Final = 3

# ECC P-256, ECDSA with SHA-256; restricted: it signs nothing that did not originate in the TPM.
_TEMPLATE: Final = bytes.fromhex(
    "0023"  # type ECC
    "000b"  # names by SHA-256
    "00050072"  # fixedTPM fixedParent sensitiveDataOrigin userWithAuth restricted sign
    "0000"  # no policy
    "0010"  # no symmetric algorithm: it is no storage key
    "0018000b"  # ECDSA, SHA-256
    "0003"  # NIST P-256
    "0010"  # no key derivation
    "00000000"  # unique: empty x, empty y
)

# The same as RSA-2048, PKCS #1 v1.5 with SHA-256, for verifiers that read no other signature.
RSA_TEMPLATE: Final = bytes.fromhex(
    "0001"  # type RSA
    "000b"  # names by SHA-256
    "00050072"  # as above
    "0000"  # no policy
    "0010"  # no symmetric algorithm
    "0014000b"  # RSASSA, SHA-256
    "0800"  # bits
    "00000000"  # exponent 65537
    "0000"  # unique: empty
)


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """A key that lives in the TPM, good while its context lasts."""

    tpm: TPM
    handle: int
    public: bytes  # TPMT_PUBLIC

    def quote(self, nonce: bytes, pcrs: AbstractSet[int]) -> TPMEvidence:
        """A quote over `nonce` and the values of `pcrs` in the SHA-256 bank, with those values.

        Values are read after the quote. Where one moved in between, all is done anew, three times at most.
        """
        if not 0 < len(nonce) <= MAX_NONCE or not pcrs:
            raise MachineError(
                f"tpm quote: nonce of {len(nonce)} bytes over {len(pcrs)} pcrs, want 1..{MAX_NONCE} over some"
            )
        for _ in range(_ATTEMPTS):
            attest, signature = self._signed(nonce, pcrs)
            values = tuple((index, self.tpm.read(index)) for index in sorted(pcrs))
            if TPMQuote.parse(attest).pcr_digest == sha256(b"".join(value for _, value in values)).digest():
                return TPMEvidence(attest=attest, signature=signature, public=self.public, pcrs=values)
        raise MachineError(f"tpm quote: a pcr moved during each of {_ATTEMPTS} quotes, want them at rest")

    def _signed(self, nonce: bytes, pcrs: AbstractSet[int]) -> tuple[bytes, bytes]:
        scheme = TPM_ALG_NULL.to_bytes(2, "big")  # the key has its own
        parameters = _sized(nonce) + scheme + selected(pcrs)
        answer = self.tpm.authorised(TPM_CC_QUOTE, _handle(self.handle), parameters, "quote").parameters
        with told("quote"):
            attest, signature = _take(answer), answer.rest()
            if TPMQuote.parse(attest).extra_data != nonce:
                raise MachineError("tpm quote: answers another nonce than it was asked with")
            TPMSignature.parse(signature)
        return attest, signature


@contextmanager
def attestation_key(tpm: TPM, template: bytes = _TEMPLATE) -> Iterator[AttestationKey]:
    """The attestation key that this TPM makes from a template (TPMT_PUBLIC), by default our own."""
    what = "create_primary"
    parameters = _sized(bytes(4)) + _sized(template) + _sized(b"") + bytes(4)  # no secret, no data, no PCRs
    answer = tpm.authorised(TPM_CC_CREATE_PRIMARY, _handle(TPM_RH_ENDORSEMENT), parameters, what, makes=True)
    handle = answer.handle or 0
    try:
        with told(what):
            public = _take(answer.parameters)
            _check(public)
        yield AttestationKey(tpm, handle, public)
    finally:
        with suppress(MachineError):  # a TPM that forgets it by itself must not hide what happened inside
            tpm.command(TPM_ST_NO_SESSIONS, TPM_CC_FLUSH_CONTEXT, _handle(handle), "flush_context").end()


def kept_key(tpm: TPM, handle: int) -> AttestationKey:
    """The key that somebody left in the TPM under a persistent handle."""
    return AttestationKey(tpm, handle, read_public(tpm, handle))


def read_public(tpm: TPM, handle: int) -> bytes:
    """The public area (TPMT_PUBLIC) of the signing key at a handle."""
    what = f"read_public 0x{handle:08x}"
    with told(what):
        response = tpm.command(TPM_ST_NO_SESSIONS, TPM_CC_READ_PUBLIC, _handle(handle), what)
        public, name = _take(response), _take(response)
        _take(response)  # the name qualified by its parents'
        response.end()
        if _check(public).name != name:
            raise MachineError(f"tpm {what}: name is not that of the public area")
    return public


def _check(public: bytes) -> TPMPublic:
    return TPMPublic.parse(public)


def _handle(handle: int) -> bytes:
    return handle.to_bytes(4, "big")


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _take(reader: Reader) -> bytes:
    return reader.take(reader.u16be())
