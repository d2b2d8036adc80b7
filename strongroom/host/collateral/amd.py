"""AMD's collateral: the certificate of a chip, and its issuers with the revocation list of their root.

Source: AMD 57230, "VCEK certificate and KDS interface".
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self, cast, get_args

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.snp import TCB, SNPReport
from strongroom.host.collateral.item import Ask, Parts, Request, Signed, Subject, Vendor, check_keys, text
from strongroom.verify.amd_chain import LeafKind, verified_crl, verify_chain, verify_issuers
from strongroom.verify.amd_leaf import Leaf
from strongroom.verify.certificates import load
from strongroom.verify.roots import Roots

HWID_SIZES: Final = {"Milan": 64, "Genoa": 64, "Turin": 8}  # by product
_NEWS: Final = timedelta(days=1)
_HEX: Final = re.compile(r"[0-9a-f]*")
_PARAMETERS: Final = {  # in the order AMD writes them
    "fmc": "fmcSPL",
    "bootloader": "blSPL",
    "tee": "teeSPL",
    "snp": "snpSPL",
    "microcode": "ucodeSPL",
}


@dataclass(frozen=True, slots=True)
class AMDChip:
    """The VCEK of one chip at one set of patch levels, with its issuers: vcek, ask and ark in DER."""

    product: str
    hwid: bytes  # 64 bytes, 8 on Turin
    tcb: TCB

    kind = "amd-chip"

    def __post_init__(self) -> None:
        size = _hwid_size(self.product, self.kind)
        if len(self.hwid) != size or not any(self.hwid):
            raise FormatError(f"{self.kind}.hwid: {len(self.hwid)} bytes, want {size} that are not all zero")
        if (self.tcb.fmc is None) == (self.product == "Turin"):
            raise FormatError(f"{self.kind}.tcb: want an fmc level on Turin, and there alone")

    @classmethod
    def of(cls, report: SNPReport, product: str) -> Self:
        """The chip that signed `report`. FormatError when the host hides its id."""
        return cls(product, report.chip_id[: _hwid_size(product, cls.kind)], report.reported_tcb)

    @property
    def title(self) -> str:
        levels = " ".join(f"{name}={level}" for name, level in self.tcb.levels().items())
        return f"AMD {self.product} chip {self.hwid.hex()[:8]}.. at {levels}"

    def subject(self) -> Subject:
        return {"product": self.product, "hwid": self.hwid.hex(), "tcb": {**self.tcb.levels()}}

    @classmethod
    def from_subject(cls, subject: Subject) -> Self:
        check_keys(subject, {"product", "hwid", "tcb"}, cls.kind)
        levels, hwid = subject["tcb"], text(subject, "hwid", cls.kind)
        if not _HEX.fullmatch(hwid) or len(hwid) % 2:
            raise FormatError(f"{cls.kind}.hwid: not lowercase hex")
        if not isinstance(levels, dict) or not all(type(level) is int for level in levels.values()):
            raise FormatError(f"{cls.kind}.tcb: want a number for each level")
        check_keys({**levels, "fmc": 0}, set(_PARAMETERS), f"{cls.kind}.tcb")
        return cls(
            text(subject, "product", cls.kind), bytes.fromhex(hwid), TCB(**cast(dict[str, int], levels))
        )

    async def fetch(self, ask: Ask) -> Parts:
        found = self.tcb.levels()
        query = "&".join(f"{_PARAMETERS[name]}={found[name]}" for name in _PARAMETERS if name in found)
        path = f"/vcek/v1/{self.product}/{self.hwid.hex()}?{query}"
        vcek = (await ask(Request(vendor=Vendor.AMD_KDS, path=path))).body
        return {"vcek": vcek, **await _issuers(self.product, "vcek", ask)}

    def examine(self, parts: Parts, *, roots: Roots, now: datetime) -> Signed:
        check_keys(parts, {"vcek", "ask", "ark"}, self.kind)
        vcek, ask, ark = (load(parts[role], role) for role in ("vcek", "ask", "ark"))
        root = verify_chain(vcek, ask, ark, kind="vcek", product=self.product, roots=roots, now=now)
        leaf = Leaf(vcek, "vcek")
        if leaf.product != self.product:
            raise VerifyError(f"vcek: made for {leaf.product[:32]!a}, want {self.product}")
        if leaf.hwid(len(self.hwid)) != self.hwid:
            raise VerifyError("vcek: made for another chip")
        if leaf.levels() != self.tcb.levels():
            raise VerifyError("vcek: made for other patch levels")
        return Signed(
            issued=vcek.not_valid_before_utc,
            until=min(certificate.not_valid_after_utc for certificate in (vcek, ask, ark)),
            renew_after=None,
            rank=(_second(vcek.not_valid_before_utc),),
            simulated=root.simulated,
        )


@dataclass(frozen=True, slots=True)
class AMDIssuers:
    """The certificates above a VCEK or VLEK, and what their root revoked: ask, ark and crl in DER."""

    product: str
    leaf: LeafKind

    kind = "amd-issuers"

    def __post_init__(self) -> None:
        _hwid_size(self.product, self.kind)
        if self.leaf not in get_args(LeafKind):
            raise FormatError(f"{self.kind}.leaf: got {self.leaf[:32]!a}, want vcek or vlek")

    @property
    def title(self) -> str:
        return f"AMD {self.product} issuers of a {self.leaf}, and what is revoked"

    def subject(self) -> Subject:
        return {"product": self.product, "leaf": self.leaf}

    @classmethod
    def from_subject(cls, subject: Subject) -> Self:
        check_keys(subject, {"product", "leaf"}, cls.kind)
        return cls(text(subject, "product", cls.kind), cast(LeafKind, text(subject, "leaf", cls.kind)))

    async def fetch(self, ask: Ask) -> Parts:
        issuers = await _issuers(self.product, self.leaf, ask)
        crl = await ask(Request(vendor=Vendor.AMD_KDS, path=f"/{self.leaf}/v1/{self.product}/crl"))
        return {**issuers, "crl": crl.body}

    def examine(self, parts: Parts, *, roots: Roots, now: datetime) -> Signed:
        """Keeps a list that names the ASK: that is the news it is fetched for, and a verifier refuses by it."""
        check_keys(parts, {"ask", "ark", "crl"}, self.kind)
        ask, ark = load(parts["ask"], "ask"), load(parts["ark"], "ark")
        root = verify_issuers(ask, ark, kind=self.leaf, product=self.product, roots=roots, now=now)
        crl = verified_crl(parts["crl"], ark, now)
        return Signed(
            issued=crl.this_update,
            until=min(crl.next_update, ask.not_valid_after_utc, ark.not_valid_after_utc),
            renew_after=_NEWS,
            rank=(_second(crl.this_update), _second(ask.not_valid_before_utc)),
            simulated=root.simulated,
        )


async def _issuers(product: str, leaf: LeafKind, ask: Ask) -> Parts:
    pem = (await ask(Request(vendor=Vendor.AMD_KDS, path=f"/{leaf}/v1/{product}/cert_chain"))).body
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except ValueError:
        chain = []
    if len(chain) != 2:
        raise FormatError(f"issuers of {product}: answer is not two certificates in PEM, want ask and ark")
    return {role: chain[at].public_bytes(Encoding.DER) for at, role in enumerate(("ask", "ark"))}


def _hwid_size(product: str, kind: str) -> int:
    if product not in HWID_SIZES:
        raise FormatError(f"{kind}.product: got {product[:32]!a}, want one of {', '.join(HWID_SIZES)}")
    return HWID_SIZES[product]


def _second(moment: datetime) -> int:
    return int(moment.timestamp())
