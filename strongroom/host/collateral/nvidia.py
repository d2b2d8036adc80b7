"""NVIDIA's collateral: reference values by name, and what its responder says of one certificate.

Reference values are issued anew under the same name, so the latest wins, and they are asked for at every fill.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Self, cast, get_args

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.rim import MAX_BYTES as MAX_RIM
from strongroom.evidence.rim import RIM
from strongroom.host.collateral.item import Ask, Parts, Request, Signed, Subject, Vendor, check_keys, text
from strongroom.verify.nvidia_chain import certificate, shown, verify_chain
from strongroom.verify.ocsp import MAX_BYTES as MAX_OCSP
from strongroom.verify.ocsp import answered
from strongroom.verify.rim import verify_rim
from strongroom.verify.roots import Anchor, Roots
from strongroom.wire.canonical import b64, parse_json, unb64

Use = Literal["device", "rim"]

_ANCHORS: Final = {"device": Anchor.NVIDIA_DEVICE, "rim": Anchor.NVIDIA_RIM}
_ID: Final = re.compile(r"NV_[A-Za-z0-9_.-]{1,120}", re.ASCII)
_MOST_LINKS: Final = 8
_OCSP_NEWS: Final = timedelta(hours=6)
_NONCE_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class NVIDIAManifest:
    """Reference values of a driver or a VBIOS: rim, the manifest in XML."""

    id: str  # such as NV_GPU_DRIVER_GH100_550.144.03

    kind = "nvidia-rim"

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise FormatError(
                f"{self.kind}.id: got {self.id[:64]!a}, want NV_ and letters, digits, ., _ and -"
            )

    @property
    def title(self) -> str:
        return f"NVIDIA reference values {self.id}"

    def subject(self) -> Subject:
        return {"id": self.id}

    @classmethod
    def from_subject(cls, subject: Subject) -> Self:
        check_keys(subject, {"id"}, cls.kind)
        return cls(text(subject, "id", cls.kind))

    async def fetch(self, ask: Ask) -> Parts:
        answer = await ask(
            Request(
                vendor=Vendor.NVIDIA_RIM,
                path=f"/v1/rim/{self.id}",
                accept="application/json",
                max_bytes=2 * MAX_RIM,
            )
        )
        found = parse_json(answer.body, "rim answer", max_bytes=2 * MAX_RIM, floats=True)
        if not isinstance(found, dict) or not isinstance(rim := found.get("rim"), str):
            raise FormatError("rim answer: no text under rim, want the manifest in base64")
        return {"rim": unb64(rim, "rim answer")}

    def examine(self, parts: Parts, *, roots: Roots, now: datetime) -> Signed:
        check_keys(parts, {"rim"}, self.kind)
        golden = verify_rim(parts["rim"], roots=roots, now=now)
        if not self._names(golden.product, golden.version):
            raise VerifyError(f"rim: made for {golden.product} {golden.version}, want {self.id}")
        signer = certificate(RIM.parse(parts["rim"]).certificates[0], "rim signer")
        return Signed(
            issued=signer.not_valid_before_utc,
            until=golden.good_until,
            renew_after=timedelta(0),
            rank=(int(signer.not_valid_before_utc.timestamp()),),  # all that is signed of its age
            simulated=golden.simulated,
        )

    def _names(self, product: str, version: str) -> bool:
        is_driver = "_DRIVER_" in self.id
        name = f"_{product}_{version}" if is_driver else f"_{version.replace('.', '')}"
        return self.id.upper().endswith(name.upper())


@dataclass(frozen=True, slots=True)
class NVIDIAStatus:
    """What the responder says of the first certificate of a chain: answer, an OCSP response in DER."""

    use: Use
    above: int  # how many certificates stood below it, in the chain it was found in
    chain: tuple[bytes, ...]  # DER; the certificate asked about, its issuers, the root

    kind = "nvidia-status"

    def __post_init__(self) -> None:
        if self.use not in get_args(Use) or not 0 <= self.above < _MOST_LINKS:
            raise FormatError(
                f"{self.kind}: use is {self.use[:32]!a}, {self.above} below; want device or rim"
            )
        if not 2 <= len(self.chain) <= _MOST_LINKS:
            raise FormatError(f"{self.kind}.chain: {len(self.chain)} certificates, want 2..{_MOST_LINKS}")
        try:
            self._certificates()
        except VerifyError as error:
            raise FormatError(f"{self.kind}.chain: {error}") from error

    @property
    def title(self) -> str:
        return (
            f"NVIDIA's word on {shown(self._certificates()[0].subject)}"  # a name of models, not of machines
        )

    def subject(self) -> Subject:
        return {"use": self.use, "above": self.above, "chain": [b64(der) for der in self.chain]}

    @classmethod
    def from_subject(cls, subject: Subject) -> Self:
        check_keys(subject, {"use", "above", "chain"}, cls.kind)
        above, chain = subject["above"], subject["chain"]
        if type(above) is not int or not isinstance(chain, list):
            raise FormatError(f"{cls.kind}: above is no number, or chain no list")
        ders = [unb64(der, f"{cls.kind}.chain") for der in chain if isinstance(der, str)]
        if len(ders) != len(chain):
            raise FormatError(f"{cls.kind}.chain: not text")
        return cls(cast(Use, text(subject, "use", cls.kind)), above, tuple(ders))

    async def fetch(self, ask: Ask) -> Parts:
        about, issuer = self._certificates()[:2]
        nonce = x509.OCSPNonce(secrets.token_bytes(_NONCE_SIZE))
        builder = ocsp.OCSPRequestBuilder().add_certificate(about, issuer, SHA384())
        answer = await ask(
            Request(
                vendor=Vendor.NVIDIA_OCSP,
                path="/",
                body=builder.add_extension(nonce, critical=False).build().public_bytes(Encoding.DER),
                content_type="application/ocsp-request",
                accept="application/ocsp-response",
                max_bytes=MAX_OCSP,
            )
        )
        _check_nonce(answer.body, nonce)
        return {"answer": answer.body}

    def examine(self, parts: Parts, *, roots: Roots, now: datetime) -> Signed:
        """Keeps an answer that says revoked: a verifier refuses by it."""
        check_keys(parts, {"answer"}, self.kind)
        certificates = self._certificates()
        chain = verify_chain(
            certificates,
            anchor=_ANCHORS[self.use],
            roots=roots,
            now=now,
            names=[shown(one.subject) for one in certificates],
            above=self.above,
        )
        start, end = answered(parts["answer"], certificates[0], certificates[1], now=now)
        return Signed(
            issued=start,
            until=end,
            renew_after=_OCSP_NEWS,
            rank=(int(start.timestamp()),),
            simulated=chain.simulated,
        )

    def _certificates(self) -> list[x509.Certificate]:
        return [certificate(der, "certificate") for der in self.chain]


def statuses(chain: Sequence[bytes], use: Use) -> list[NVIDIAStatus]:
    """What to ask about a chain: every certificate a verifier wants an answer for.

    That is all but the root, and but the attestation key of a device, which its own device certified at boot.
    """
    first = 1 if use == "device" else 0
    return [NVIDIAStatus(use, at, tuple(chain[at:])) for at in range(first, len(chain) - 1)]


def _check_nonce(answer: bytes, nonce: x509.OCSPNonce) -> None:
    """A responder may leave the nonce out, for its answers have dates; another one is no answer to us."""
    try:
        response = ocsp.load_der_ocsp_response(answer)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return  # said when it is examined
        found = response.extensions.get_extension_for_class(x509.OCSPNonce).value
    except x509.ExtensionNotFound:
        return
    except (ValueError, TypeError, x509.DuplicateExtension) as error:
        raise FormatError("ocsp: not an answer we can read") from error
    if found != nonce:
        raise VerifyError("ocsp: the answer carries another nonce than the question")
