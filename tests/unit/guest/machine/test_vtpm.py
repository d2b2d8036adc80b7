"""Mirrors guest/machine/vtpm.py: a real swtpm as a cloud hands it over, as nobody does, and as Azure does."""

import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demo.silicon.vtpm import vtpm
from demo.silicon.vtpm_authority import AK_TEMPLATE, certify, define
from guest.machine.tpm import TPM, opened
from guest.machine.tpm_nv import TPM_RH_OWNER, keep, read_index, remove
from guest.machine.tpm_quote import attestation_key, read_public
from guest.machine.vtpm import CERTIFICATE, KEPT_KEY, QUOTED, TEMPLATE, VTPM
from strongroom.errors import MachineError, VerifyError
from strongroom.evidence.tpm import Hash, TPMPublic, TPMQuote, TPMSignature
from strongroom.verify.roots import PRODUCTION, Anchor
from strongroom.verify.tpm import verify_quote
from strongroom.verify.tpm_chain import split_der, verify_ak_chain
from tests import need
from tests.fakes.tpm import NOW, ak_chain

NONCE = bytes(range(32))


@pytest.fixture
def path(socket_dir: Path) -> Iterator[Path]:
    need(shutil.which("swtpm"), "there is no swtpm")
    with vtpm(socket_dir) as path:
        yield path


def test_a_certified_tpm_quotes_what_it_followed(path: Path) -> None:
    root = certify(path)
    device = VTPM(path)
    assert device.prepare() is None
    device.extend(bytes(32))
    evidence = device.quote(NONCE)
    assert evidence is not None and evidence.indices == QUOTED
    claims = verify_quote(
        TPMQuote.parse(evidence.attest),
        TPMSignature.parse(evidence.signature),
        key=TPMPublic.parse(evidence.public),
        nonce=NONCE,
        pcrs=evidence.values,
        bank=Hash.SHA256,
        wanted=QUOTED,
    )
    assert claims.pcrs[15] == sha256(bytes(64)).digest()
    chain = split_der(evidence.certificates)
    roots = PRODUCTION.with_insecure([root])
    certified = verify_ak_chain(chain, anchor=Anchor.GCP_VTPM, roots=roots, now=NOW)
    assert certified.key_sha256 == claims.key_sha256
    with pytest.raises(VerifyError, match="want the pinned gcp_vtpm root"):
        verify_ak_chain(chain, anchor=Anchor.GCP_VTPM, roots=PRODUCTION, now=NOW)


def test_the_key_is_made_once_a_boot_and_takes_the_place_of_any_other(path: Path) -> None:
    certify(path)
    with opened(path) as tpm, attestation_key(tpm) as other:
        keep(tpm, other.handle, KEPT_KEY)
        before = other.public
    device = VTPM(path)
    assert device.prepare() is None
    with opened(path) as tpm:
        assert (kept := read_public(tpm, KEPT_KEY)) != before
    again = VTPM(path)
    assert again.prepare() is None
    quotes = [one.quote(NONCE) for one in (device, again)]
    assert [quote.public for quote in quotes if quote is not None] == [kept, kept]


def test_a_key_that_was_exchanged_is_told(path: Path) -> None:
    certify(path)
    device = VTPM(path)
    device.prepare()
    with opened(path) as tpm, attestation_key(tpm) as other:
        remove(tpm, KEPT_KEY)
        keep(tpm, other.handle, KEPT_KEY)
    with pytest.raises(MachineError, match="tpm key 0x81027372: another one than at the start"):
        device.quote(NONCE)


def test_without_a_certificate_there_is_no_quote(path: Path) -> None:
    device = VTPM(path)
    assert device.prepare() == "tpm: nobody certified a key of it, so no quote will be given"
    device.extend(bytes(32))
    assert device.quote(NONCE) is None


def test_a_certificate_for_another_key_gives_no_quote(path: Path) -> None:
    with opened(path) as tpm:
        define(tpm, TEMPLATE, AK_TEMPLATE)
        define(tpm, CERTIFICATE, b"".join(ak_chain()[:2]))
    device = VTPM(path)
    assert device.prepare() == "tpm: ak certificate: is for another key, so no quote will be given"
    assert device.quote(NONCE) is None


def test_issuers_may_lie_in_a_file(path: Path, socket_dir: Path, tmp_path: Path) -> None:
    certify(path)
    with opened(path) as tpm:
        content = read_index(tpm, CERTIFICATE)
    assert content is not None
    leaf, root = split_der(content)
    (socket_dir / "second").mkdir()
    issuers = tmp_path / "vtpm-issuers.pem"
    # The same TPM, whose authority left the leaf alone in it.
    with vtpm(socket_dir / "second"):
        pass
    shutil.copytree(socket_dir / "state", socket_dir / "second" / "state", dirs_exist_ok=True)
    with vtpm(socket_dir / "second") as other:
        with opened(other) as tpm:
            undefine(tpm, CERTIFICATE)
            define(tpm, CERTIFICATE, leaf + bytes(100))
        gap = VTPM(other, issuers=issuers).prepare()
        assert gap is not None and "no certificate of INSECURE-SIMULATED vTPM root" in gap
        issuers.write_bytes(x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM))
        device = VTPM(other, issuers=issuers)
        assert device.prepare() is None
        evidence = device.quote(NONCE)
        assert evidence is not None and evidence.certificates == leaf + root
        issuers.write_bytes(b"nothing")
        gap = VTPM(other, issuers=issuers).prepare()
        assert gap is not None and "does not start a certificate in PEM, so no quote" in gap


def undefine(tpm: TPM, index: int) -> None:
    handles = TPM_RH_OWNER.to_bytes(4, "big") + index.to_bytes(4, "big")
    tpm.authorised(0x122, handles, b"", "nv_undefine_space")
