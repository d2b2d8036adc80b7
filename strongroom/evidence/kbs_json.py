"""The JSON faces of evidence in the KBS protocol, each with its own encoding of bytes.

    snp            strongroom.evidence.snp_json
    tdx            {"cc_eventlog": null | base64, "quote": base64}
    az-snp-vtpm    {"version": 2, "tpm_quote": {"signature", "message": hex, "pcrs": [24 x hex]},
                    "hcl_report": base64url with padding, "vcek": the same, DER}
    az-tdx-vtpm    the same with "td_quote" in place of "vcek"
    tpm            {"tpm_quote": {"signature", "message": base64, "pcrs": [24 x hex]}, "ak_public": base64}
    additional     text of {"nvidia": {"device_evidence_list": [{"arch", "uuid", "evidence", "certificate"}]},
                    "strongroom": {"events": [...]}}

Azure's signature is the bare RSA number. The last member is ours: the event log, for a broker that asked for it.
"""

import base64
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from strongroom.errors import FormatError
from strongroom.evidence.bundle import MAX_GPUS
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.kbs import AZURE, KBSEvidence, KBSTee
from strongroom.evidence.nvidia_certs import parse_chain
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.snp_json import from_kbs as from_snp
from strongroom.evidence.snp_json import to_kbs as to_snp
from strongroom.evidence.tpm import Hash, Scheme, TPMSignature
from strongroom.evidence.vtpm import PCRS, TPMEvidence
from strongroom.wire.canonical import JSON, b64, pack_json, parse_json, unb64
from strongroom.wire.pem import pem

MAX_ADDITIONAL: Final = 1 << 20  # characters
NVIDIA: Final = "nvidia"
OURS: Final = "strongroom"
AZURE_VERSION: Final = 2
_AZURE_VERSIONS: Final = (1, AZURE_VERSION)
_ARCHITECTURES: Final = ("hopper", "blackwell", "ls10")
_QUOTE_KEYS: Final = {"signature", "message", "pcrs"}


def to_json(evidence: KBSEvidence) -> JSON:
    """`primary_evidence` of an attestation."""
    match evidence.tee:
        case "snp":
            return to_snp(evidence.report, CertificateTable.parse(evidence.certificates))
        case "tdx":
            return {
                "cc_eventlog": b64(evidence.log) if evidence.log else None,
                "quote": b64(evidence.report),
            }
        case "tpm":
            quote = _tpm(evidence)
            return {
                "tpm_quote": {
                    "signature": b64(quote.signature),
                    "message": b64(quote.attest),
                    "pcrs": [value.hex() for _, value in quote.pcrs],
                },
                "ak_public": b64(evidence.key),
            }
    quote = _tpm(evidence)
    (number,) = TPMSignature.parse(quote.signature).numbers
    members: dict[str, JSON] = {
        "version": AZURE_VERSION,
        "tpm_quote": {
            "signature": number.hex(),
            "message": quote.attest.hex(),
            "pcrs": [value.hex() for _, value in quote.pcrs],
        },
        "hcl_report": _b64url(evidence.report),
    }
    if evidence.tee == "az-tdx-vtpm":
        return members | {"td_quote": _b64url(evidence.certificates)}
    return members | {"vcek": _b64url(vcek_of(evidence))}


def from_json(tee: KBSTee, value: JSON) -> KBSEvidence:
    """The evidence in a `primary_evidence`; FormatError naming the first bad member."""
    match tee:
        case "snp":
            report, table = from_snp(value)
            return KBSEvidence(tee=tee, report=report.pack(), certificates=table.pack())
        case "tdx":
            return _tdx(value)
        case "tpm":
            members = _members(
                value, "tpm evidence", {"tpm_quote", "ak_public"}, optional={"report_data"}
            )  # which older agents repeat; the quote has the one that counts
            quote = _members(members["tpm_quote"], "tpm evidence.tpm_quote", _QUOTE_KEYS)
            return KBSEvidence(
                tee=tee,
                key=_octets(members, "ak_public", "tpm evidence"),
                tpm=TPMEvidence(
                    attest=_octets(quote, "message", "tpm evidence"),
                    signature=_octets(quote, "signature", "tpm evidence"),
                    pcrs=_pcrs(quote["pcrs"], "tpm evidence"),
                ),
            )
    return _azure(tee, value)


def pack_additional(gpus: Sequence[GPUEvidence], events: EventLog | None) -> str:
    """`additional_evidence` of an attestation: hashed and sent as this very text. Empty where there is nothing."""
    members: dict[str, JSON] = {}
    if gpus:
        members[NVIDIA] = {"device_evidence_list": [_device_json(device) for device in gpus]}
    if events is not None:
        members[OURS] = {"events": events.to_json()}
    return pack_json(members).decode() if members else ""


def parse_additional(text: str) -> tuple[tuple[GPUEvidence, ...], EventLog | None]:
    """The devices and the event log in an `additional_evidence`. A device of any other kind is a FormatError."""
    if not text:
        return (), None
    at = "additional_evidence"
    value = parse_json(text.encode("utf-8", "surrogatepass"), at, max_bytes=MAX_ADDITIONAL)
    members = _members(value, at, set(), optional={NVIDIA, OURS})
    gpus: tuple[GPUEvidence, ...] = ()
    events = None
    if NVIDIA in members:
        listed = _members(members[NVIDIA], f"{at}.{NVIDIA}", {"device_evidence_list"})["device_evidence_list"]
        if not isinstance(listed, list) or not 0 < len(listed) <= MAX_GPUS:
            raise FormatError(f"{at}.{NVIDIA}: want a list of 1..{MAX_GPUS} devices")
        gpus = tuple(_device(item, f"{at}.{NVIDIA}[{n}]") for n, item in enumerate(listed))
    if OURS in members:
        events = EventLog.from_json(_members(members[OURS], f"{at}.{OURS}", {"events"})["events"])
    return gpus, events


def vcek_of(evidence: KBSEvidence) -> bytes:
    """The chip's certificate (DER), which this shape cannot do without; FormatError where the host gave none."""
    vcek = CertificateTable.parse(evidence.certificates).vcek
    if vcek is None:
        raise FormatError(f"{evidence.tee} evidence: no vcek, want the chip's certificate with it")
    return vcek


def _tpm(evidence: KBSEvidence) -> TPMEvidence:
    if evidence.tpm is None:
        raise FormatError(f"{evidence.tee} evidence: no tpm quote, want one")
    return evidence.tpm


def _tdx(value: JSON) -> KBSEvidence:
    at = "tdx evidence"
    members = _members(value, at, {"quote"}, optional={"cc_eventlog"})
    log = b"" if members.get("cc_eventlog") is None else _octets(members, "cc_eventlog", at)
    return KBSEvidence(tee="tdx", report=_octets(members, "quote", at), log=log)


def _azure(tee: KBSTee, value: JSON) -> KBSEvidence:
    if tee not in AZURE:
        raise FormatError(f"kbs evidence: tee is {tee}, want one of {', '.join(AZURE)}")
    at, beside = f"{tee} evidence", "td_quote" if tee == "az-tdx-vtpm" else "vcek"
    members = _members(
        value, at, {"version", "tpm_quote", "hcl_report", beside}, optional={"cc_eventlog"}
    )  # newer agents add the firmware's log; the registers it explains are in the quote
    if type(version := members["version"]) is not int or version not in _AZURE_VERSIONS:
        raise FormatError(f"{at}: version is {ascii(version)[:40]}, want 1 or 2")
    quote = _members(members["tpm_quote"], f"{at}.tpm_quote", _QUOTE_KEYS)
    signature = _hex(quote["signature"], f"{at}.signature")
    if not signature:
        raise FormatError(f"{at}.signature: empty, want an rsa signature")
    given = _url(members[beside], f"{at}.{beside}")
    return KBSEvidence(
        tee=tee,
        report=_url(members["hcl_report"], f"{at}.hcl_report"),
        certificates=given if beside == "td_quote" else CertificateTable(vcek=given).pack(),
        tpm=TPMEvidence(
            attest=_hex(quote["message"], f"{at}.message"),
            signature=TPMSignature(Scheme.RSASSA, Hash.SHA256, (signature,)).pack(),
            pcrs=_pcrs(quote["pcrs"], at),
        ),
        binds_user_data=version >= AZURE_VERSION,
    )


def _device_json(device: GPUEvidence) -> JSON:
    return {
        "arch": device.kind.upper(),
        "uuid": "unknown",  # the report's certificates name the device, and no text beside them
        "evidence": b64(device.report),
        "certificate": b64(pem(parse_chain(device.certificates))),
    }


def _device(value: JSON, at: str) -> GPUEvidence:
    members = _members(value, at, {"arch", "uuid", "evidence", "certificate"})
    arch, uuid, evidence = members["arch"], members["uuid"], members["evidence"]
    if not isinstance(arch, str) or not isinstance(uuid, str) or not isinstance(evidence, str):
        raise FormatError(f"{at}: arch, uuid and evidence must be text")
    if arch.lower() not in _ARCHITECTURES:
        raise FormatError(f"{at}: arch is {ascii(arch)[:40]}, want HOPPER, BLACKWELL or LS10")
    try:
        report = bytes.fromhex(evidence)  # as older agents write it
    except ValueError:
        report = unb64(evidence, f"{at}.evidence")
    chain = parse_chain(_octets(members, "certificate", at))
    return GPUEvidence(kind=arch.lower(), certificates=b"".join(chain), report=report)


def _pcrs(value: JSON, at: str) -> tuple[tuple[int, bytes], ...]:
    if not isinstance(value, list) or len(value) != PCRS:
        raise FormatError(f"{at}.pcrs: want a list of {PCRS} values")
    return tuple((index, _hex(item, f"{at}.pcrs[{index}]")) for index, item in enumerate(value))


def _octets(members: Mapping[str, JSON], name: str, at: str) -> bytes:
    text = members[name]
    if not isinstance(text, str):
        raise FormatError(f"{at}.{name}: must be text")
    return unb64(text, f"{at}.{name}")


def _hex(value: JSON, at: str) -> bytes:
    if not isinstance(value, str):
        raise FormatError(f"{at}: must be text")
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise FormatError(f"{at}: not hex") from None


def _b64url(data: bytes) -> str:
    """With padding, as this one shape has it."""
    return base64.urlsafe_b64encode(data).decode()


def _url(value: JSON, at: str) -> bytes:
    if not isinstance(value, str) or "+" in value or "/" in value:
        raise FormatError(f"{at}: not padded base64url")
    return unb64(value.replace("-", "+").replace("_", "/"), at)


def _members(
    value: JSON, at: str, keys: AbstractSet[str], *, optional: AbstractSet[str] = frozenset()
) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise FormatError(f"{at}: not an object")
    if missing := keys - value.keys():
        raise FormatError(f"{at}: no {min(missing)}")
    if unknown := value.keys() - keys - optional:
        raise FormatError(f"{at}: unknown key {ascii(min(unknown))[:40]}")
    return value
