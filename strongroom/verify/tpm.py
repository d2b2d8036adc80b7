"""Did this TPM key sign exactly the PCRs that were asked for, just now?

The digest in a quote covers PCR values without their numbers. Which PCR a value belongs to is known only from
the signed selection, so the selection is compared whole: one bank, exactly the wanted bitmap, as many values.

Whether the key is a TPM's is the caller's to know: from a certificate (tpm_chain), from hardware evidence
(azure), or from a list.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import VerifyError
from strongroom.evidence.tpm import (
    DEFAULT_EXPONENT,
    Attributes,
    Curve,
    Hash,
    Scheme,
    TPMPublic,
    TPMQuote,
    TPMSignature,
)

SigningKey = RSAPublicKey | ec.EllipticCurvePublicKey

_REQUIRED: Final = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.RESTRICTED
    | Attributes.SIGN
)
_SIGNATURE_HASHES: Final = {Hash.SHA256: SHA256(), Hash.SHA384: SHA384(), Hash.SHA512: SHA512()}
_CURVES: Final = {Curve.P256: ec.SECP256R1, Curve.P384: ec.SECP384R1}
_RSA_BITS: Final = (2048, 3072, 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class TPMClaims:
    """What a verified quote says. Only `verify_quote` makes these outside of tests."""

    bank: Hash
    pcrs: Mapping[int, bytes]  # every wanted PCR and no other
    nonce: bytes
    key_sha256: bytes  # of the key's DER SubjectPublicKeyInfo
    qualified_signer: bytes
    clock: int  # milliseconds
    reset_count: int  # differs from an earlier quote's: the machine was rebooted in between
    restart_count: int
    safe: bool
    firmware_version: int
    not_checked: tuple[str, ...]  # what could not be checked, in words


def verify_quote(
    quote: TPMQuote,
    signature: TPMSignature,
    *,
    key: TPMPublic | SigningKey,
    nonce: bytes,
    pcrs: Mapping[int, bytes],
    bank: Hash,
    wanted: frozenset[int],
) -> TPMClaims:
    """The claims of a quote over exactly the PCRs `wanted` of `bank`, made for `nonce` and signed by `key`.

    `key` is one the caller believes to be a TPM's. Given as a public area, it must be an attestation key by
    its attributes; given bare, whoever vouches for it vouches for those. Raises VerifyError.
    """
    if not nonce or quote.extra_data != nonce:
        raise VerifyError(
            "tpm quote: extra_data differs, want the nonce of this challenge, which is not empty"
        )
    _check_selection(quote, bank, wanted)
    _check_values(quote, signature.hash, pcrs, bank, wanted)
    public = _attestation_key(key, signature) if isinstance(key, TPMPublic) else key
    _check_signature(quote.pack(), signature, public)
    return TPMClaims(
        bank=bank,
        pcrs=MappingProxyType({pcr: pcrs[pcr] for pcr in sorted(wanted)}),
        nonce=nonce,
        key_sha256=key_sha256(public),
        qualified_signer=quote.qualified_signer,
        clock=quote.clock,
        reset_count=quote.reset_count,
        restart_count=quote.restart_count,
        safe=quote.safe,
        firmware_version=quote.firmware_version,
        not_checked=()
        if isinstance(key, TPMPublic)
        else ("attributes of the tpm key: no public area given",),
    )


def public_key(public: TPMPublic) -> SigningKey:
    """The key in a public area; VerifyError when its numbers are not a key."""
    numbers = [int.from_bytes(number, "big") for number in public.unique]
    try:
        if public.curve is None:
            return RSAPublicNumbers(public.exponent or DEFAULT_EXPONENT, numbers[0]).public_key()
        return ec.EllipticCurvePublicNumbers(numbers[0], numbers[1], _CURVES[public.curve]()).public_key()
    except ValueError as error:
        raise VerifyError("tpm key: its numbers are not a public key") from error


def key_sha256(key: SigningKey) -> bytes:
    """The SHA-256 of a key's DER SubjectPublicKeyInfo: the name we give it."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _check_selection(quote: TPMQuote, bank: Hash, wanted: frozenset[int]) -> None:
    if not wanted:
        raise VerifyError("tpm quote: no pcr is wanted, want at least one")
    if len(quote.pcr_select) != 1:
        raise VerifyError(f"tpm quote: {len(quote.pcr_select)} banks are quoted, want {bank} alone")
    (selection,) = quote.pcr_select
    if selection.bank is not bank:
        raise VerifyError(f"tpm quote: bank is {selection.bank}, want {bank}")
    if selection.pcrs != wanted:
        raise VerifyError(f"tpm quote: pcrs are {_ranges(selection.pcrs)}, want {_ranges(wanted)}")


def _check_values(
    quote: TPMQuote, scheme_hash: Hash, pcrs: Mapping[int, bytes], bank: Hash, wanted: frozenset[int]
) -> None:
    if pcrs.keys() != wanted:
        raise VerifyError(f"pcr values: given for {_ranges(pcrs.keys())}, want {_ranges(wanted)}")
    for pcr, value in pcrs.items():
        if len(value) != bank.size:
            raise VerifyError(f"pcr values: pcr {pcr} is {len(value)} bytes, want {bank.size} of {bank}")
    # The hash is the signature's, whatever the bank (Part 3, 18.4: "the hash algorithm of the signing scheme").
    digest = scheme_hash.digest(b"".join(pcrs[pcr] for pcr in sorted(wanted)))
    if quote.pcr_digest != digest:
        raise VerifyError("tpm quote: pcr_digest is not the digest of the pcr values given")


def _attestation_key(public: TPMPublic, signature: TPMSignature) -> SigningKey:
    found = public.attributes
    # A key that is not restricted signs any bytes it is given, a made-up quote among them.
    if missing := _REQUIRED & ~found:
        raise VerifyError(f"tpm key: attributes are 0x{found:x}, which lack {_named(missing)}")
    if found & (Attributes.DECRYPT | Attributes.X509_SIGN):
        raise VerifyError(f"tpm key: attributes are 0x{found:x}, want a key that signs attestations alone")
    if public.scheme is None or public.hash is None:
        raise VerifyError("tpm key: has no signing scheme, want one")
    if (public.scheme, public.hash) != (signature.scheme, signature.hash):
        raise VerifyError(
            f"tpm signature: scheme is {signature.scheme.name} with {signature.hash}, "
            f"the key's is {public.scheme.name} with {public.hash}"
        )
    return public_key(public)


def _check_signature(signed: bytes, signature: TPMSignature, key: SigningKey) -> None:
    algorithm = _SIGNATURE_HASHES.get(signature.hash)
    if algorithm is None:
        raise VerifyError(f"tpm signature: hash is {signature.hash}, want sha256, sha384 or sha512")
    try:
        if isinstance(key, RSAPublicKey) and signature.scheme is not Scheme.ECDSA:
            if key.key_size not in _RSA_BITS:
                raise VerifyError(f"tpm key: {key.key_size} bits, want 2048, 3072 or 4096")
            # A TPM salts with as many bytes as fit, or in FIPS mode with a digest's worth: both are sound.
            pss = PSS(mgf=MGF1(algorithm), salt_length=PSS.AUTO)
            padding = pss if signature.scheme is Scheme.RSAPSS else PKCS1v15()
            key.verify(signature.numbers[0], signed, padding, algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and signature.scheme is Scheme.ECDSA:
            if not isinstance(key.curve, tuple(_CURVES.values())):
                raise VerifyError(f"tpm key: curve is {key.curve.name}, want P-256 or P-384")
            r, s = (int.from_bytes(number, "big") for number in signature.numbers)
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(algorithm))
        else:
            raise VerifyError(f"tpm signature: scheme {signature.scheme.name} does not fit the kind of key")
    except InvalidSignature as error:
        raise VerifyError(f"tpm quote: signature is not the key's ({signature.scheme.name})") from error


def _named(attributes: Attributes) -> str:
    return ", ".join(str(flag.name).lower() for flag in Attributes if flag in attributes)


def _ranges(pcrs: Iterable[int]) -> str:
    """ "0-7, 9": PCR numbers as a person writes them."""
    runs: list[list[int]] = []
    for pcr in sorted(pcrs):
        if runs and pcr == runs[-1][-1] + 1:
            runs[-1].append(pcr)
        else:
            runs.append([pcr])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) or "none"
