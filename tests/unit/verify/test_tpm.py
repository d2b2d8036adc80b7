"""Mirrors strongroom/verify/tpm.py: every quote of the shared set, then every way to quote something else."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.hcl import HCLReport, RuntimeData
from strongroom.evidence.tpm import (
    Attributes,
    Curve,
    Hash,
    PCRSelection,
    Scheme,
    TPMPublic,
    TPMQuote,
    TPMSignature,
)
from strongroom.verify.azure import attestation_key
from strongroom.verify.tpm import SigningKey, TPMClaims, public_key, verify_quote
from tests import ROOT, VECTORS
from tests.fakes.tpm import AK_ATTRIBUTES, NONCE, PCRS, FakeTPM, ec_key, ec_tpm, rsa_key, rsa_tpm

INDEX: Final = VECTORS / "index.json"
TPM: Final = rsa_tpm()
WANTED: Final = frozenset(PCRS)
SWTPM: Final = json.loads((ROOT / "tests/vectors/swtpm.json").read_text())
ALL: Final = frozenset(range(24))


@dataclass(frozen=True)
class Real:
    """A quote of the set, what it is checked with, and what index.json says of it."""

    name: str
    quote: TPMQuote
    signature: TPMSignature
    key: Any
    pcrs: Mapping[int, bytes]
    bank: Hash
    expect: dict[str, Any]


def real_quotes() -> list[Real]:
    vectors = json.loads(INDEX.read_text())["vectors"] if INDEX.exists() else []
    found: list[Real] = []
    for vector in vectors:
        files = {name: VECTORS / file for name, file in vector["files"].items() if isinstance(file, str)}
        match vector["kind"]:
            case "tpm-quote" if "evidence" in files:
                found.append(swtpm_quote(vector, json.loads(files["evidence"].read_text())))
            case "tpm-quote":
                found += google_quotes(vector, files)
            case "tpm-uki":
                found.append(uki_quote(vector, files))
            case "azure-hcl" if "quote" in files:
                found.append(azure_quote(vector, files))
    return found


def swtpm_quote(vector: dict[str, Any], evidence: dict[str, Any]) -> Real:
    quoted = evidence["tpm_quote"]
    return Real(
        vector["id"],
        TPMQuote.parse(b64decode(quoted["message"])),
        TPMSignature.parse(b64decode(quoted["signature"])),
        load_der_public_key(b64decode(evidence["ak_public"])),
        values(quoted["pcrs"]),
        Hash.SHA256,
        vector["expect"],
    )


def google_quotes(vector: dict[str, Any], files: dict[str, Any]) -> list[Real]:
    folder = files["ak_pub"].parent
    return [
        Real(
            f"{vector['id']}-{bank}",
            TPMQuote.parse((folder / f"quote_{bank}.attest").read_bytes()),
            TPMSignature.parse((folder / f"quote_{bank}.sig").read_bytes()),
            TPMPublic.parse(files["ak_pub"].read_bytes()),
            values(json.loads((folder / f"pcrs_{bank}.json").read_text())),
            bank,
            next(quote for quote in vector["expect"]["quotes"] if quote["bank"] == bank.name.lower()),
        )
        for bank in (Hash.SHA1, Hash.SHA256, Hash.SHA384)
    ]


def uki_quote(vector: dict[str, Any], files: dict[str, Any]) -> Real:
    quote = TPMQuote.parse(files["quote"].read_bytes())
    return Real(
        vector["id"],
        quote,
        TPMSignature.parse(files["sig"].read_bytes()),
        load_pem_public_key(files["ak"].read_bytes()),
        {
            pcr: value
            for pcr, value in values(json.loads(files["pcrs"].read_text())).items()
            if pcr in {*range(16), 16, 23}
        },
        Hash.SHA256,
        vector["expect"],
    )


def azure_quote(vector: dict[str, Any], files: dict[str, Any]) -> Real:
    return Real(
        vector["id"],
        TPMQuote.parse(files["quote"].read_bytes()),
        TPMSignature(Scheme.RSASSA, Hash.SHA256, (files["sig"].read_bytes(),)),
        attestation_key(RuntimeData.parse(HCLReport.parse(files["hcl"].read_bytes()).variable_data)),
        values(json.loads(files["pcrs"].read_text())),
        Hash.SHA256,
        vector["expect"],
    )


def values(raw: dict[str, str] | list[str]) -> dict[int, bytes]:
    pairs = raw.items() if isinstance(raw, dict) else enumerate(raw)
    return {int(pcr): bytes.fromhex(value) for pcr, value in pairs}


REAL: Final = {real.name: real for real in real_quotes()}
needs_vectors: Final = pytest.mark.skipif(not REAL, reason="no real vectors beside this checkout")


def verify(
    tpm: FakeTPM = TPM,
    *,
    nonce: bytes = NONCE,
    pcrs: Mapping[int, bytes] = PCRS,
    bank: Hash = Hash.SHA256,
    wanted: frozenset[int] = WANTED,
    key: TPMPublic | SigningKey | None = None,
    quote: tuple[TPMQuote, TPMSignature] | None = None,
) -> TPMClaims:
    made, signature = tpm.quote() if quote is None else quote
    return verify_quote(
        made,
        signature,
        key=tpm.public if key is None else key,
        nonce=nonce,
        pcrs=pcrs,
        bank=bank,
        wanted=wanted,
    )


def verify_real(real: Real, **changes: Any) -> TPMClaims:
    arguments: dict[str, Any] = {
        "key": real.key,
        "nonce": bytes.fromhex(real.expect["extra_data"]),
        "pcrs": real.pcrs,
        "bank": real.bank,
        "wanted": frozenset(real.pcrs),
        "quote": (real.quote, real.signature),
    }
    return verify(**(arguments | changes))


@needs_vectors
def test_every_real_quote_was_found() -> None:
    assert len(REAL) == 9


@needs_vectors
@pytest.mark.parametrize("name", REAL)
def test_real_quotes_verify_and_say_what_is_listed(name: str) -> None:
    real = REAL[name]
    claims = verify_real(real)
    assert claims.pcrs == real.pcrs
    assert claims.nonce.hex() == real.expect["extra_data"]
    assert real.expect["pcr_digest_ok"]
    assert real.expect.get("signature_valid", True) and real.expect.get("quote_signature_valid", True)
    for field in ("clock", "reset_count", "restart_count", "safe"):
        assert getattr(claims, field) == real.expect.get(field, getattr(claims, field))
    assert hex(claims.firmware_version) == real.expect.get("firmware_version", hex(claims.firmware_version))


@needs_vectors
@pytest.mark.parametrize("name", REAL)
def test_a_real_quote_over_other_pcrs_never_passes(name: str) -> None:
    real = REAL[name]
    for pcr in real.pcrs:
        fewer = {other: value for other, value in real.pcrs.items() if other != pcr}
        with pytest.raises(VerifyError, match="tpm quote: pcrs are"):
            verify_real(real, pcrs=fewer, wanted=frozenset(fewer))
        with pytest.raises(VerifyError, match="pcr values: given for"):
            verify_real(real, pcrs=fewer)
    for bank in {*Hash} - {real.bank}:
        with pytest.raises(VerifyError, match=f"bank is {real.bank}, want {bank}"):
            verify_real(real, bank=bank)


@needs_vectors
@pytest.mark.parametrize("name", REAL)
def test_every_changed_bit_of_a_real_quote_is_refused(name: str) -> None:
    real = REAL[name]
    data = real.quote.pack()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FormatError, VerifyError)):
            verify_real(real, quote=(TPMQuote.parse(bytes(changed)), real.signature))


@pytest.mark.parametrize("made", SWTPM["quotes"], ids=lambda made: made["scheme"])
def test_quotes_of_a_software_tpm_verify_under_their_own_numbers_alone(made: dict[str, str]) -> None:
    public = TPMPublic.parse(bytes.fromhex(made["public"]))
    assert public.name.hex() == made["name"]
    quote = TPMQuote.parse(bytes.fromhex(made["quote"]))
    signature = TPMSignature.parse(bytes.fromhex(made["signature"]))
    nonce, pcrs = bytes.fromhex(SWTPM["nonce"]), values(SWTPM["pcrs"])
    given: dict[str, Any] = {"key": public, "nonce": nonce, "quote": (quote, signature)}
    claims = verify(**given, pcrs=pcrs, wanted=frozenset(pcrs))
    assert claims.pcrs == pcrs
    assert claims.pcrs.keys() == {*range(11), *range(16, 24)}
    # The same values in the same order, under the numbers somebody else would like them to have.
    renamed = dict(enumerate(pcrs[pcr] for pcr in sorted(pcrs)))
    with pytest.raises(VerifyError, match=r"tpm quote: pcrs are 0-10, 16-23, want 0-18$"):
        verify(**given, pcrs=renamed, wanted=frozenset(renamed))


@pytest.mark.parametrize(
    "tpm",
    [
        rsa_tpm(),
        rsa_tpm(Scheme.RSAPSS),
        rsa_tpm(Scheme.RSASSA, Hash.SHA384),
        rsa_tpm(Scheme.RSAPSS, Hash.SHA512),
        ec_tpm(),
        ec_tpm(Curve.P384, Hash.SHA384),
    ],
    ids=lambda tpm: f"{tpm.public.scheme.name}-{tpm.public.hash}",
)
def test_every_scheme_verifies(tpm: FakeTPM) -> None:
    claims = verify(tpm)
    assert claims.pcrs == PCRS
    assert claims.not_checked == ()
    assert (claims.clock, claims.reset_count, claims.safe) == (123456, 7, True)
    bare = verify(tpm, key=public_key(tpm.public))
    assert bare.not_checked == ("attributes of the tpm key: no public area given",)
    assert bare.key_sha256 == claims.key_sha256


def test_a_sha384_bank_is_digested_with_the_hash_of_the_signature() -> None:
    pcrs = {0: bytes(48), 7: b"\x07" * 48}
    quote = TPM.quote(pcrs=pcrs, bank=Hash.SHA384)
    assert len(quote[0].pcr_digest) == 32
    assert verify(quote=quote, pcrs=pcrs, bank=Hash.SHA384, wanted=frozenset(pcrs)).pcrs == pcrs


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("nonce", [b"", NONCE[:-1], NONCE + b"\0", bytes(32)])
def test_another_nonce_is_refused(nonce: bytes) -> None:
    with pytest.raises(VerifyError, match="extra_data differs"):
        verify(nonce=nonce)


def test_an_empty_nonce_is_refused_even_when_both_are_empty() -> None:
    with pytest.raises(VerifyError, match="which is not empty"):
        verify(nonce=b"", quote=TPM.quote(b""))


def test_a_resettable_pcr_cannot_stand_in_for_another() -> None:
    # All values in list order hash to the same digest: only the bitmap says that the last is PCR 16, not 11.
    shifted = {pcr: value for pcr, value in PCRS.items() if pcr != 11} | {16: PCRS[11]}
    quote = TPM.quote(pcrs=shifted)
    assert quote[0].pcr_digest == TPM.quote()[0].pcr_digest
    with pytest.raises(VerifyError, match="pcrs are 0-4, 7, 16, want 0-4, 7, 11"):
        verify(quote=quote)


def test_more_pcrs_than_wanted_are_refused() -> None:
    more = PCRS | {12: bytes(32)}
    with pytest.raises(VerifyError, match="pcrs are 0-4, 7, 11-12, want 0-4, 7, 11"):
        verify(quote=TPM.quote(pcrs=more), pcrs=more)


@pytest.mark.parametrize(
    ("banks", "why"),
    [
        ((), "0 banks are quoted, want sha256 alone"),
        ((Hash.SHA256, Hash.SHA256), "2 banks are quoted"),
        ((Hash.SHA256, Hash.SHA1), "2 banks are quoted"),
        ((Hash.SHA1,), "bank is sha1, want sha256"),
        ((Hash.SHA384,), "bank is sha384, want sha256"),
    ],
)
def test_only_the_wanted_bank_alone_passes(banks: tuple[Hash, ...], why: str) -> None:
    select = tuple(PCRSelection(bank, WANTED) for bank in banks)
    with pytest.raises(VerifyError, match=why):
        verify(quote=TPM.quote(pcr_select=select))


def test_an_empty_selection_beside_the_wanted_one_is_refused() -> None:
    select = (PCRSelection(Hash.SHA256, WANTED), PCRSelection(Hash.SHA1, frozenset()))
    with pytest.raises(VerifyError, match="2 banks are quoted"):
        verify(quote=TPM.quote(pcr_select=select))


def test_to_want_no_pcr_is_refused() -> None:
    with pytest.raises(VerifyError, match="no pcr is wanted"):
        verify(quote=TPM.quote(pcrs={}), pcrs={}, wanted=frozenset())


@pytest.mark.parametrize(
    ("pcrs", "why"),
    [
        ({}, "given for none, want 0-4, 7, 11"),
        (PCRS | {12: bytes(32)}, "given for 0-4, 7, 11-12"),
        (PCRS | {11: bytes(31)}, "pcr 11 is 31 bytes, want 32 of sha256"),
        (PCRS | {11: b""}, "pcr 11 is 0 bytes"),
        (PCRS | {11: bytes(32)}, "pcr_digest is not the digest"),
        (PCRS | {7: PCRS[11], 11: PCRS[7]}, "pcr_digest is not the digest"),
        (PCRS | {4: PCRS[4] + PCRS[7][:1], 7: PCRS[7][1:]}, "pcr 4 is 33 bytes"),
    ],
)
def test_other_values_are_refused(pcrs: dict[int, bytes], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify(pcrs=pcrs)


def test_another_key_is_refused() -> None:
    with pytest.raises(VerifyError, match="signature is not the key's"):
        verify(key=rsa_key("another").public_key())
    with pytest.raises(VerifyError, match="does not fit the kind of key"):
        verify(key=ec_key("another").public_key())
    with pytest.raises(VerifyError, match="does not fit the kind of key"):
        verify(ec_tpm(), key=rsa_key("ak").public_key())


def test_every_changed_bit_is_refused() -> None:
    quote, signature = TPM.quote()
    whole = quote.pack() + signature.pack()
    size = len(quote.pack())
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FormatError, VerifyError)):
            verify(quote=(TPMQuote.parse(bytes(changed[:size])), TPMSignature.parse(bytes(changed[size:]))))


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        (AK_ATTRIBUTES & ~Attributes.RESTRICTED, "which lack restricted"),
        (AK_ATTRIBUTES & ~Attributes.FIXED_TPM, "which lack fixed_tpm"),
        (AK_ATTRIBUTES & ~Attributes.FIXED_PARENT, "which lack fixed_parent"),
        (AK_ATTRIBUTES & ~Attributes.SENSITIVE_DATA_ORIGIN, "which lack sensitive_data_origin"),
        (AK_ATTRIBUTES & ~Attributes.SIGN, "which lack sign"),
        (AK_ATTRIBUTES | Attributes.DECRYPT, "want a key that signs attestations alone"),
        (AK_ATTRIBUTES | Attributes.X509_SIGN, "want a key that signs attestations alone"),
    ],
)
def test_a_key_that_is_no_attestation_key_is_refused(attributes: int, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify(rsa_tpm(attributes=attributes))


def test_the_key_s_scheme_decides_not_the_signature_s() -> None:
    pss = rsa_tpm(Scheme.RSAPSS)
    with pytest.raises(VerifyError, match="scheme is RSAPSS with sha256, the key's is RSASSA with sha256"):
        verify(quote=pss.quote())
    with pytest.raises(VerifyError, match="has no signing scheme"):
        verify(key=replace(TPM.public, scheme=None, hash=None))


def test_sha1_signatures_are_refused() -> None:
    quote, signature = TPM.quote()
    quote = replace(quote, pcr_digest=Hash.SHA1.digest(b"".join(PCRS.values())))
    sha1 = replace(signature, hash=Hash.SHA1)
    with pytest.raises(VerifyError, match="hash is sha1, want"):
        verify(quote=(quote, sha1), key=rsa_key("ak").public_key())


def test_small_keys_and_other_curves_are_refused() -> None:
    small = FakeTPM(rsa_key("small", 1024), TPM.public)
    with pytest.raises(VerifyError, match="1024 bits, want 2048"):
        verify(quote=small.quote(), key=rsa_key("small", 1024).public_key())


@pytest.mark.parametrize(
    "numbers", [(b"\0", b"\1"), (b"\1", b"\0"), (b"\xff" * 32, b"\1"), (b"\1", b"\xff" * 512)]
)
def test_senseless_ecdsa_numbers_are_refused(numbers: tuple[bytes, bytes]) -> None:
    quote, signature = ec_tpm().quote()
    with pytest.raises(VerifyError, match="signature is not the key's"):
        verify(ec_tpm(), quote=(quote, replace(signature, numbers=numbers)))


def test_a_point_off_the_curve_is_refused() -> None:
    public = ec_tpm().public
    with pytest.raises(VerifyError, match="not a public key"):
        public_key(replace(public, unique=(bytes(31) + b"\1", bytes(31) + b"\1")))
