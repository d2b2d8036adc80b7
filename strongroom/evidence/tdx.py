"""Intel TDX evidence: a quote (version 4 or 5), and the 1024-byte report a guest gets of itself.

Layouts: Intel, "TDX DCAP Quoting Library API", appendix A (quotes); "TDX Module ABI", TDREPORT_STRUCT. Numbers are
little-endian, reserved bytes zero. A quote's signature covers header and body; every length and type behind them
is unsigned, so each has to fit exactly.
"""

from dataclasses import dataclass
from hashlib import sha384
from typing import ClassVar, Final, Literal, Self

from strongroom.errors import FormatError
from strongroom.evidence.enclave import SIZE as ENCLAVE_REPORT_SIZE
from strongroom.evidence.enclave import EnclaveReport
from strongroom.wire.reader import Reader

MAX_QUOTE: Final = 64 * 1024  # bytes, with padding
REPORT_SIZE: Final = 1024
TEE_TYPE: Final = 0x81
QE_VENDOR_ID: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")  # Intel's quoting enclave

DEBUG: Final = 1 << 0  # td_attributes
SEPT_VE_DISABLE: Final = 1 << 28
MIGRATABLE: Final = 1 << 29
PKS: Final = 1 << 30
KEY_LOCKER: Final = 1 << 31
PERFMON: Final = 1 << 63
KNOWN_ATTRIBUTES: Final = DEBUG | SEPT_VE_DISABLE | MIGRATABLE | PKS | KEY_LOCKER | PERFMON

Trailing = Literal["zeros", "none", "any"]

_QUOTE: Final = "tdx quote"
_BODY: Final = "td report body"
_REPORT: Final = "tdx report"
_BODY_SIZES: Final = {2: 584, 3: 648}  # by body type: TDX 1.0, TDX 1.5
_BYTE_FIELDS: Final = {
    "tee_tcb_svn": 16,
    "mr_seam": 48,
    "mrsigner_seam": 48,
    "mr_td": 48,
    "mr_config_id": 48,
    "mr_owner": 48,
    "mr_owner_config": 48,
    "rtmr0": 48,
    "rtmr1": 48,
    "rtmr2": 48,
    "rtmr3": 48,
    "report_data": 64,
}
_INT_FIELDS: Final = ("seam_attributes", "td_attributes", "xfam")  # eight bytes each
_QE_CERTIFICATION: Final = 6  # certification data types
_PCK_CHAIN: Final = 5
_TCB_INFO: Final = slice(256, 495)  # parts of the 1024-byte report
_TD_INFO: Final = slice(512, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class TDReportBody:
    """What the TDX module says of one guest. The last two fields exist since TDX 1.5, together or not at all."""

    tee_tcb_svn: bytes
    mr_seam: bytes
    mrsigner_seam: bytes  # zero for Intel's module
    seam_attributes: int
    td_attributes: int
    xfam: int
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mr_service_td: bytes | None = None  # not zero: a service TD, such as for migration, is bound

    def __post_init__(self) -> None:
        for name, size in _BYTE_FIELDS.items():
            if (found := len(getattr(self, name))) != size:
                raise FormatError(f"{_BODY}: {name} is {found} bytes, want {size}")
        for name in _INT_FIELDS:
            if not 0 <= getattr(self, name) < 1 << 64:
                raise FormatError(f"{_BODY}: {name} does not fit 8 bytes")
        sizes = tuple(None if part is None else len(part) for part in (self.tee_tcb_svn2, self.mr_service_td))
        if sizes not in ((None, None), (16, 48)):
            raise FormatError(f"{_BODY}: the fields of tdx 1.5 are {sizes} bytes, want 16 and 48, or neither")

    @property
    def body_type(self) -> Literal[2, 3]:
        """As a quote of version 5 counts: 2 is TDX 1.0, 3 is TDX 1.5."""
        return 2 if self.tee_tcb_svn2 is None else 3

    @property
    def rtmrs(self) -> tuple[bytes, bytes, bytes, bytes]:
        return (self.rtmr0, self.rtmr1, self.rtmr2, self.rtmr3)

    @property
    def module_svn(self) -> int:
        """Minor security version of the TDX module."""
        return self.tee_tcb_svn[0]

    @property
    def module_version(self) -> int:
        """Generation of the TDX module: 0 is TDX 1.0."""
        return self.tee_tcb_svn[1]

    @property
    def debug(self) -> bool:
        return bool(self.td_attributes & DEBUG)

    @property
    def sept_ve_disable(self) -> bool:
        return bool(self.td_attributes & SEPT_VE_DISABLE)

    @property
    def migratable(self) -> bool:
        return bool(self.td_attributes & MIGRATABLE)

    @property
    def reserved_attributes(self) -> int:
        """The bits of td_attributes that have no meaning we know."""
        return self.td_attributes & ~KNOWN_ATTRIBUTES

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read exactly 584 or 648 bytes, or raise FormatError naming the first broken rule."""
        if len(data) not in _BODY_SIZES.values():
            raise FormatError(f"{_BODY}: got {len(data)} bytes, want 584 or 648")
        reader = Reader(data, _BODY)
        # Keyword arguments are evaluated in the order written: this call is the layout table.
        return cls(
            tee_tcb_svn=reader.take(16),
            mr_seam=reader.take(48),
            mrsigner_seam=reader.take(48),
            seam_attributes=reader.u64le(),
            td_attributes=reader.u64le(),
            xfam=reader.u64le(),
            mr_td=reader.take(48),
            mr_config_id=reader.take(48),
            mr_owner=reader.take(48),
            mr_owner_config=reader.take(48),
            rtmr0=reader.take(48),
            rtmr1=reader.take(48),
            rtmr2=reader.take(48),
            rtmr3=reader.take(48),
            report_data=reader.take(64),
            tee_tcb_svn2=reader.take(16) if reader.remaining else None,
            mr_service_td=reader.take(48) if reader.remaining else None,
        )

    def pack(self) -> bytes:
        return b"".join(
            (
                self.tee_tcb_svn,
                self.mr_seam,
                self.mrsigner_seam,
                _le(self.seam_attributes, 8),
                _le(self.td_attributes, 8),
                _le(self.xfam, 8),
                self.mr_td,
                self.mr_config_id,
                self.mr_owner,
                self.mr_owner_config,
                *self.rtmrs,
                self.report_data,
                self.tee_tcb_svn2 or b"",
                self.mr_service_td or b"",
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TDXQuote:
    """A quote by Intel's quoting enclave, ECDSA on P-256. What the header fixes stands in the class."""

    att_key_type: ClassVar[int] = 2
    tee_type: ClassVar[int] = TEE_TYPE
    qe_vendor_id: ClassVar[bytes] = QE_VENDOR_ID

    version: int
    user_data: bytes  # 20
    body: TDReportBody
    signature: bytes  # r || s, big-endian
    attestation_key: bytes  # x || y, big-endian
    qe_report: EnclaveReport
    qe_report_signature: bytes
    qe_auth_data: bytes
    pck_chain: bytes  # PEM, ended by a NUL on some machines
    trailing: bytes = b""  # what followed the quote

    def __post_init__(self) -> None:
        if self.version not in {4, 5}:
            raise FormatError(f"{_QUOTE}: version is {self.version}, want 4 or 5")
        if self.version == 4 and self.body.body_type != 2:
            raise FormatError(f"{_QUOTE}: body of tdx 1.5 in version 4, want version 5")
        for name, size in {
            "user_data": 20,
            "signature": 64,
            "attestation_key": 64,
            "qe_report_signature": 64,
        }.items():
            if (found := len(getattr(self, name))) != size:
                raise FormatError(f"{_QUOTE}: {name} is {found} bytes, want {size}")
        if len(self.qe_auth_data) > 0xFFFF:
            raise FormatError(f"{_QUOTE}: qe_auth_data is {len(self.qe_auth_data)} bytes, want at most 65535")

    @property
    def body_type(self) -> Literal[2, 3] | None:
        """None in version 4, which has no body descriptor."""
        return None if self.version == 4 else self.body.body_type

    @property
    def signed_part(self) -> bytes:
        """Header, body descriptor and body."""
        body = self.body.pack()
        descriptor = b"" if self.version == 4 else _le(self.body.body_type, 2) + _le(len(body), 4)
        return b"".join(
            (
                _le(self.version, 2),
                _le(self.att_key_type, 2),
                _le(self.tee_type, 4),
                bytes(4),
                self.qe_vendor_id,
                self.user_data,
                descriptor,
                body,
            )
        )

    @classmethod
    def parse(cls, data: bytes, *, trailing: Trailing = "zeros") -> Self:
        """Read a quote, or raise FormatError naming the first broken rule.

        `trailing` says what may follow it: the kernel pads with zeros, and only old specimens with anything else.
        """
        if len(data) > MAX_QUOTE:
            raise FormatError(f"{_QUOTE}: {len(data)} bytes, want at most {MAX_QUOTE}")
        reader = Reader(data, _QUOTE)
        version = reader.u16le()
        if version not in {4, 5}:
            raise FormatError(f"{_QUOTE}: version is {version}, want 4 or 5")
        _want("attestation key type", reader.u16le(), cls.att_key_type)
        _want("tee type", reader.u32le(), cls.tee_type)
        reader.zeros(4)
        if (vendor := reader.take(16)) != cls.qe_vendor_id:
            raise FormatError(f"{_QUOTE}: qe vendor id is {vendor.hex()}, want {cls.qe_vendor_id.hex()}")
        user_data = reader.take(20)
        body = TDReportBody.parse(reader.take(_body_size(reader, version)))
        signed = Reader(reader.take(reader.u32le()), f"{_QUOTE}: signature data")
        signature, attestation_key = signed.take(64), signed.take(64)
        certification = _certification(signed, _QE_CERTIFICATION)
        quote = cls(
            version=version,
            user_data=user_data,
            body=body,
            signature=signature,
            attestation_key=attestation_key,
            qe_report=EnclaveReport.parse(certification.take(ENCLAVE_REPORT_SIZE)),
            qe_report_signature=certification.take(64),
            qe_auth_data=certification.take(certification.u16le()),
            pck_chain=_certification(certification, _PCK_CHAIN).rest(),
            trailing=reader.rest(),
        )
        quote._check_trailing(trailing)
        return quote

    def pack(self) -> bytes:
        """The quote, and whatever followed it."""
        certification = b"".join(
            (
                self.qe_report.pack(),
                self.qe_report_signature,
                _le(len(self.qe_auth_data), 2),
                self.qe_auth_data,
                _typed(_PCK_CHAIN, self.pck_chain),
            )
        )
        signed = self.signature + self.attestation_key + _typed(_QE_CERTIFICATION, certification)
        return self.signed_part + _le(len(signed), 4) + signed + self.trailing

    def _check_trailing(self, allowed: Trailing) -> None:
        if self.trailing and (allowed == "none" or (allowed == "zeros" and any(self.trailing))):
            what = "bytes" if allowed == "none" else "bytes, not all zero,"
            want = "none" if allowed == "none" else "zeros"
            raise FormatError(f"{_QUOTE}: {len(self.trailing)} {what} follow it, want {want}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TDReport:
    """A TDREPORT_STRUCT: what a guest gets of itself. Its MAC means something on the same machine alone."""

    version: int  # 1 when a service TD may be bound, else 0
    cpu_svn: bytes
    mac: bytes
    valid: bytes  # which parts of the TEE_TCB_INFO are
    body: TDReportBody  # always with the fields of TDX 1.5

    def __post_init__(self) -> None:
        if self.version not in {0, 1}:
            raise FormatError(f"{_REPORT}: version is {self.version}, want 0 or 1")
        for name, size in {"cpu_svn": 16, "mac": 32, "valid": 8}.items():
            if (found := len(getattr(self, name))) != size:
                raise FormatError(f"{_REPORT}: {name} is {found} bytes, want {size}")
        if self.body.mr_service_td is None:
            raise FormatError(f"{_REPORT}: body of tdx 1.0, want the fields of tdx 1.5")
        if self.version == 0 and any(self.body.mr_service_td):
            raise FormatError(f"{_REPORT}: servtd_hash in version 0, want version 1")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read exactly 1024 bytes; both inner hashes must be those of the parts they cover."""
        if len(data) != REPORT_SIZE:
            raise FormatError(f"{_REPORT}: got {len(data)} bytes, want {REPORT_SIZE}")
        mac = Reader(data[:256], _REPORT)
        kind, subtype, version = mac.take(3)
        if (kind, subtype) != (TEE_TYPE, 0):
            raise FormatError(f"{_REPORT}: type is {kind:#x}, {subtype}, want {TEE_TYPE:#x}, 0")
        mac.zeros(13)
        cpu_svn = mac.take(16)
        for name, part in (("tee_tcb_info_hash", _TCB_INFO), ("tee_info_hash", _TD_INFO)):
            if mac.take(48) != sha384(data[part]).digest():
                raise FormatError(f"{_REPORT}: {name} is not the hash of what it covers")
        report_data = mac.take(64)
        mac.zeros(32)
        tcb = Reader(data[256:512], _REPORT)
        td = Reader(data[_TD_INFO], _REPORT)
        valid, tee_tcb_svn, seam = tcb.take(8), tcb.take(16), tcb.take(104)
        body = tee_tcb_svn + seam + td.take(400) + report_data + tcb.take(16) + td.take(48)
        tcb.zeros(112)
        td.zeros(64)
        return cls(
            version=version,
            cpu_svn=cpu_svn,
            mac=mac.take(32),
            valid=valid,
            body=TDReportBody.parse(body),
        )

    def pack(self) -> bytes:
        body = Reader(self.body.pack(), _REPORT)
        tee_tcb_svn, seam, td, report_data = body.take(16), body.take(104), body.take(400), body.take(64)
        tcb_info = self.valid + tee_tcb_svn + seam + body.take(16) + bytes(95)
        td_info = td + body.take(48) + bytes(64)
        return b"".join(
            (
                bytes((TEE_TYPE, 0, self.version)),
                bytes(13),
                self.cpu_svn,
                sha384(tcb_info).digest(),
                sha384(td_info).digest(),
                report_data,
                bytes(32),
                self.mac,
                tcb_info,
                bytes(17),
                td_info,
            )
        )


def _body_size(reader: Reader, version: int) -> int:
    if version == 4:
        return _BODY_SIZES[2]
    body_type, size = reader.u16le(), reader.u32le()
    if _BODY_SIZES.get(body_type) != size:
        raise FormatError(f"{_QUOTE}: body type {body_type} of {size} bytes, want 2 of 584 or 3 of 648")
    return size


def _certification(reader: Reader, kind: int) -> Reader:
    """Certification data of this type, which must fill what is left of `reader`."""
    _want("certification data type", reader.u16le(), kind)
    data = reader.take(reader.u32le())
    reader.end()
    return Reader(data, f"{_QUOTE}: certification data {kind}")


def _typed(kind: int, data: bytes) -> bytes:
    return _le(kind, 2) + _le(len(data), 4) + data


def _want(name: str, found: int, want: int) -> None:
    if found != want:
        raise FormatError(f"{_QUOTE}: {name} is {found:#x}, want {want:#x}")


def _le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")
