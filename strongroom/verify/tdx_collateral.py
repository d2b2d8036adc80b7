"""What Intel publishes about its platforms, as a verifier of TDX quotes needs it: signed, public, short-lived.

Whoever hands collateral over is not believed: every part is signed under the pinned root, and only the dates in it
say whether it is still good.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.verify.intel_json import SignedJSON
from strongroom.wire.canonical import JSON

TCB_INFO: Final = "tcbInfo"  # what each signed document calls its object
QE_IDENTITY: Final = "enclaveIdentity"
_SUBJECT: Final = "tdx collateral"
_MAX_BYTES: Final = {
    "tcb_info": 256 * 1024,
    "tcb_info_chain": 64 * 1024,
    "qe_identity": 256 * 1024,
    "qe_identity_chain": 64 * 1024,
    "root_crl": 64 * 1024,
    "pck_crl": 4 * 1024 * 1024,
    "pck_crl_chain": 64 * 1024,
}
_V3: Final = (  # members of the form that travels, and how each is written
    ("tcb_info_issuer_chain", "tcb_info_chain"),
    ("qe_identity_issuer_chain", "qe_identity_chain"),
    ("pck_crl_issuer_chain", "pck_crl_chain"),
)
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TDXCollateral:
    """Documents exactly as the provisioning service sends them, with the chains from its response headers."""

    tcb_info: bytes  # {"tcbInfo":{...},"signature":"..."}
    tcb_info_chain: bytes  # PEM
    qe_identity: bytes  # {"enclaveIdentity":{...},"signature":"..."}
    qe_identity_chain: bytes
    root_crl: bytes  # DER
    pck_crl: bytes  # DER, of the CA that issued the PCK certificate
    pck_crl_chain: bytes  # passed on to others: the quote's own chain decides who may sign the list

    def __post_init__(self) -> None:
        for name, most in _MAX_BYTES.items():
            if not 0 < (found := len(getattr(self, name))) <= most:
                raise FormatError(f"{_SUBJECT}: {name} is {found} bytes, want 1..{most}")

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        """Read the form other tools exchange (QuoteCollateralV3): objects as text, lists in hexadecimal."""
        if not isinstance(value, dict) or value.keys() != _members():
            raise FormatError(f"{_SUBJECT}: want exactly the members {' '.join(sorted(_members()))}")
        text = {key: item for key, item in value.items() if isinstance(item, str)}
        if len(text) != len(value):
            raise FormatError(f"{_SUBJECT}: a member is not text")
        try:
            verbatim = {key: item.encode() for key, item in text.items()}
        except UnicodeEncodeError as error:
            raise FormatError(f"{_SUBJECT}: text holds a lone surrogate") from error
        return cls(
            tcb_info=_document(verbatim["tcb_info"], text["tcb_info_signature"], TCB_INFO),
            qe_identity=_document(verbatim["qe_identity"], text["qe_identity_signature"], QE_IDENTITY),
            root_crl=_unhex(text["root_ca_crl"], "root_ca_crl"),
            pck_crl=_unhex(text["pck_crl"], "pck_crl"),
            **{ours: verbatim[theirs] for theirs, ours in _V3},
        )

    def to_json(self) -> dict[str, JSON]:
        """The form other tools exchange; the same text for the same bytes."""
        tcb_info = SignedJSON.parse(self.tcb_info, TCB_INFO)
        qe_identity = SignedJSON.parse(self.qe_identity, QE_IDENTITY)
        chains: dict[str, JSON] = {theirs: _text(getattr(self, ours), theirs) for theirs, ours in _V3}
        return chains | {
            "tcb_info": _text(tcb_info.signed, "tcb_info"),
            "tcb_info_signature": tcb_info.signature.hex(),
            "qe_identity": _text(qe_identity.signed, "qe_identity"),
            "qe_identity_signature": qe_identity.signature.hex(),
            "root_ca_crl": self.root_crl.hex(),
            "pck_crl": self.pck_crl.hex(),
        }


def _members() -> set[str]:
    signed = {f"{name}{suffix}" for name in ("tcb_info", "qe_identity") for suffix in ("", "_signature")}
    return signed | {"root_ca_crl", "pck_crl"} | {theirs for theirs, _ in _V3}


def _document(signed: bytes, signature: str, member: str) -> bytes:
    if len(found := _unhex(signature, f"{member} signature")) != 64:
        raise FormatError(f"{_SUBJECT}: {member} signature is {len(found)} bytes, want 64")
    return SignedJSON(signed, found).pack(member)


def _unhex(text: str, name: str) -> bytes:
    if not _HEX.fullmatch(text):
        raise FormatError(f"{_SUBJECT}: {name} is not hexadecimal")
    return bytes.fromhex(text)


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{_SUBJECT}: {name} is not UTF-8 text") from error
