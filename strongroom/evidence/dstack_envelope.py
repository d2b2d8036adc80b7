"""Where there is no TDX, what stands in the place of its quote and of its attestation in dstack's answers.

    quote        48 bytes   header: version 4, key type 3, TEE type 0, vendor "strongroom/quote", zeros
                584 bytes   a TD report body that repeats what the evidence says, in the places readers look
                  4 bytes   length of the rest, little-endian
                            the attestation (dstack_attestation.py, or the map below), whose report is signed

    attestation             MessagePack {"version": 1, "platform": {"kind": "strongroom", "data": {"bundle": CBOR}},
    (behind a paravisor)                 "stack": {"kind": "dstack", "data": {report_data, runtime_events, config}}}

Clients of dstack read registers and report_data at fixed offsets of a quote. Here they find them, and no verifier of
TDX can take the whole for a quote: TEE type, key type and vendor are none of Intel's, and no signature is. Whoever
wants to believe something verifies the attestation inside. Register 3 is the head of the event log (eventlog.py).
"""

from dataclasses import dataclass
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.evidence.dstack_attestation import MAX_BYTES
from strongroom.evidence.tdx import TDReportBody
from strongroom.wire.messagepack import pack_messagepack
from strongroom.wire.reader import Reader

KIND: Final = "strongroom"
_BODY: Final = 584  # bytes
_HEADER: Final = (
    (4).to_bytes(2, "little") + (3).to_bytes(2, "little") + bytes(8) + b"strongroom/quote" + bytes(20)
)
_SUBJECT: Final = "quote envelope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    body: TDReportBody  # a claim, like the header: only the attestation is evidence
    attestation: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an envelope to its last byte, or raise FormatError: for a genuine quote too."""
        reader = Reader(data, _SUBJECT)
        if reader.take(len(_HEADER)) != _HEADER:
            raise FormatError(f"{_SUBJECT}: another header, want that of a machine without tdx")
        body = TDReportBody.parse(reader.take(_BODY))
        attestation = reader.take(reader.u32le())
        reader.end()
        return cls(body=body, attestation=attestation)

    def pack(self) -> bytes:
        body = self.body.pack()
        if len(body) != _BODY or len(self.attestation) > MAX_BYTES:
            raise FormatError(f"{_SUBJECT}: body of {len(body)} bytes, want {_BODY}")
        return _HEADER + body + len(self.attestation).to_bytes(4, "little") + self.attestation


def body(*, measurement: bytes, committed: bytes, head: bytes, report_data: bytes) -> TDReportBody:
    """What an envelope repeats: launch digest, what the launcher committed to (32 or 48 bytes), log head."""
    zero = bytes(48)
    return TDReportBody(
        tee_tcb_svn=bytes(16),
        mr_seam=zero,
        mrsigner_seam=zero,
        seam_attributes=0,
        td_attributes=0,
        xfam=0,
        mr_td=measurement,
        mr_config_id=committed.ljust(48, b"\0"),
        mr_owner=zero,
        mr_owner_config=zero,
        rtmr0=zero,
        rtmr1=zero,
        rtmr2=zero,
        rtmr3=head,
        report_data=report_data,
    )


def pack_bundle(bundle: bytes, report_data: bytes) -> bytes:
    """The attestation of a machine whose only fresh evidence is a TPM's quote: one of our bundles, in CBOR.

    The bundle's challenge commits to `report_data` (binding.application_challenge), which is repeated beside it.
    """
    return pack_messagepack(
        {
            "version": 1,
            "platform": {"kind": KIND, "data": {"bundle": bundle}},
            "stack": {
                "kind": "dstack",
                "data": {"report_data": list(report_data), "runtime_events": [], "config": ""},
            },
        }
    )
