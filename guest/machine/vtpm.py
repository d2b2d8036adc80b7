"""This machine's vTPM: a register that follows the event log, and quotes by a key that somebody vouches for.

    Azure      the paravisor's report, in an NV index, names the key that it keeps under a lasting handle
    a cloud    an NV index holds the key's certificate, another the template to make the key from
    nobody     then there is no quote: without a word for its key any software could have been that TPM

A key of a template is made once a boot and kept under a handle of ours. Certificates between it and the cloud's root
are in the index too, or in a file that anybody may have put there: a verifier has the root's pin.

Source: NV indices as Azure and Google Cloud fill them for their guests.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from guest.machine.azure import HCL_REPORT, report_with
from guest.machine.tpm import DIGEST_SIZE, PCR_COUNT, TPM, opened, told
from guest.machine.tpm_nv import is_there, keep, read_index, remove
from guest.machine.tpm_quote import (
    AZURE_KEY,
    RSA_TEMPLATE,
    AttestationKey,
    attestation_key,
    kept_key,
    read_public,
)
from strongroom.errors import FormatError, MachineError, VerifyError
from strongroom.evidence.eventlog import PCR
from strongroom.evidence.initdata import PCR as INIT_DATA_PCR
from strongroom.evidence.initdata import fitted
from strongroom.evidence.tpm import TPMPublic
from strongroom.evidence.vtpm import TPMEvidence
from strongroom.verify.tpm import public_key
from strongroom.verify.tpm_chain import complete_chain, split_der
from strongroom.wire.pem import MAX_BYTES as MAX_PEM
from strongroom.wire.pem import certificates

CERTIFICATE: Final = 0x01C10000  # of the RSA key of TEMPLATE
TEMPLATE: Final = 0x01C10001  # TPMT_PUBLIC
KEPT_KEY: Final = 0x81027372  # in the range that is the owner's to use
BROKER_KEY: Final = 0x81010002  # where agents of the key broker protocol keep theirs
ALL: Final = frozenset(range(PCR_COUNT))
QUOTED: Final = frozenset(
    range(16)
)  # firmware, boot and the operating system; the rest can be reset at run time


@dataclass(frozen=True, slots=True)
class _Key:
    handle: int
    public: bytes  # TPMT_PUBLIC
    certificates: bytes | None  # DER, leaf first, the root last; None where a report names the key


class VTPM:
    """The TPM at `path`; `issuers` is a PEM file of certificates above its key's, and need not exist."""

    def __init__(self, path: Path, *, issuers: Path | None = None) -> None:
        self._path, self._issuers = path, issuers
        self._key: _Key | None = None
        self.paravisor_report: bytes | None = None  # Azure's, as it stands in its index

    def prepare(self) -> str | None:
        """Find or make the key of this boot; in words why there is none, where there is none. MachineError."""
        with opened(self._path) as tpm:
            self.paravisor_report = read_index(tpm, HCL_REPORT)
            if self.paravisor_report is not None:
                self._key = _Key(AZURE_KEY, read_public(tpm, AZURE_KEY), None)
                return None
            certificate, template = (read_index(tpm, index) for index in (CERTIFICATE, TEMPLATE))
            if certificate is None or template is None:
                return "tpm: nobody certified a key of it, so no quote will be given"
            public = _made(tpm, template)
        try:
            key = public_key(TPMPublic.parse(public))
            chain = complete_chain(split_der(certificate), self._more(), key=key)
        except (FormatError, MachineError, VerifyError) as error:
            return f"tpm: {error}, so no quote will be given"
        self._key = _Key(KEPT_KEY, public, b"".join(chain))
        return None

    def extend(self, digest: bytes) -> None:
        """Extend the register of the event log."""
        with opened(self._path) as tpm:
            tpm.extend(PCR, digest)

    def quote(self, nonce: bytes, pcrs: frozenset[int] = QUOTED) -> TPMEvidence | None:
        """A quote over `nonce` and the registers, by the key that `prepare` found; None where it found none."""
        if self._key is None:
            return None
        with opened(self._path) as tpm:
            key = kept_key(tpm, self._key.handle)
            if key.public != self._key.public:
                raise MachineError(f"tpm key 0x{key.handle:08x}: another one than at the start of this boot")
            evidence = key.quote(nonce, pcrs)
        if self._key.certificates is None:
            return replace(evidence, public=b"")
        return replace(evidence, certificates=self._key.certificates)

    def paravisor_report_with(self, user_data: bytes) -> bytes:
        """Azure's report made anew around data of ours, see `azure.report_with`."""
        return report_with(self._path, user_data)

    def quote_alone(self, nonce: bytes) -> tuple[TPMEvidence, bytes]:
        """A quote over `nonce` and every register, and its key as DER SPKI, for whoever believes that key by name.

        The key is the one that agents of the key broker protocol use, or an RSA key of ours: the same at every boot,
        until the TPM is cleared.
        """
        with opened(self._path) as tpm, _named_key(tpm) as key:
            evidence = key.quote(nonce, ALL)
            spki = public_key(TPMPublic.parse(key.public))
        return replace(evidence, public=b""), spki.public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )

    def extend_init_data(self, digest: bytes) -> None:
        """Extend the register of the init-data, once a boot. MachineError where it is not at zero any more."""
        with opened(self._path) as tpm:
            if any(found := tpm.read(INIT_DATA_PCR)):
                raise MachineError(
                    f"tpm pcr {INIT_DATA_PCR}: is {found.hex()}, want zeros: something else extended it before"
                )
            tpm.extend(INIT_DATA_PCR, fitted(digest, DIGEST_SIZE))

    def _more(self) -> tuple[bytes, ...]:
        if self._issuers is None or not self._issuers.exists():
            return ()
        with told(str(self._issuers)), self._issuers.open("rb") as file:
            return certificates(file.read(MAX_PEM + 1), str(self._issuers))


@contextmanager
def _named_key(tpm: TPM) -> Iterator[AttestationKey]:
    if is_there(tpm, BROKER_KEY):
        yield kept_key(tpm, BROKER_KEY)
        return
    with attestation_key(tpm, RSA_TEMPLATE) as key:
        yield key


def _made(tpm: TPM, template: bytes) -> bytes:
    """The public area of the key of this template, which is then under our handle, in place of any other."""
    with attestation_key(tpm, template) as key:
        if is_there(tpm, KEPT_KEY):
            if read_public(tpm, KEPT_KEY) == key.public:
                return key.public
            remove(tpm, KEPT_KEY)
        keep(tpm, key.handle, KEPT_KEY)
        return key.public
