"""Reports of GPUs and switches, lists of them, and reference manifests, as Strongroom sees them."""

from datetime import datetime
from hashlib import sha256, sha384
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from strongroom.errors import VerifyError
from strongroom.evidence.dice import COMPOSITE_DEVICE_ID, TCB_INFO, fwids
from strongroom.evidence.nvidia_certs import parse_chain
from strongroom.evidence.nvidia_json import from_nvidia
from strongroom.evidence.rim import RIM
from strongroom.evidence.spdm import Opaque, SPDMReport
from strongroom.verify.gpus import _check_distinct
from strongroom.verify.nvidia import GPUClaims, Kind, verify_device
from strongroom.verify.nvidia_chain import certificate, check_issued, check_signed, verify_chain
from strongroom.verify.rim import GoldenValues, compare, verify_rim
from strongroom.verify.roots import Anchor, Roots
from strongroom.wire.canonical import parse_json
from tests.vectors.index import Vector, VectorSet, window
from tests.vectors.judge import Observation

_RAW = {
    "board_id": Opaque.BOARD_ID,
    "nvdec0_status": Opaque.NVDEC0_STATUS,
    "protected_pcie_status": Opaque.PROTECTED_PCIE_STATUS,
    "opaque_data_version": Opaque.OPAQUE_DATA_VERSION,
    "feature_flag": Opaque.FEATURE_FLAG,
    "report_fwid": Opaque.FWID,
}


def observe_report(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """One device, and where manifests are beside it how it compares."""
    observed = Observation()
    raw, chain = vectors.read(vector, "report"), vectors.read(vector, "cert_chain")
    claims = observe_device(raw, chain, observed, vectors, roots)
    if "vbios_rim" in vector.paths and claims is not None:
        observed.found["rim_comparison"] = observed.attempt(
            lambda: _comparison(vector, vectors, roots, claims)
        )
    return observed


def observe_list(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """Several devices in the JSON of NVIDIA's tools."""
    observed = Observation()
    raw = vectors.read(vector, "evidence")
    devices = from_nvidia(parse_json(raw, "nvidia evidence", max_bytes=1 << 20))
    found: list[dict[str, Any]] = []
    verified: list[GPUClaims] = []
    for device in devices:
        one = Observation(refusals=observed.refusals)
        claims = observe_device(device.report, device.certificates, one, vectors, roots)
        verified += [claims] if claims is not None else []
        one.found["nonce_field"] = device.nonce.hex()
        one.found["nonce_matches_report"] = one.found.get("request", {}).get("nonce") == device.nonce.hex()
        one.found["arch_field"] = device.architecture.upper()
        found.append(one.found)
    distinct = len({claims.device_serial for claims in verified})
    repeated = Observation()
    repeated.attempt(lambda: _check_distinct(verified))
    if bool(repeated.refusals) != (distinct < len(devices)):
        observed.refusals.append(
            VerifyError(f"gpus: {distinct} distinct of {len(devices)}, judged otherwise")
        )
    observed.found |= {"count": len(devices), "distinct_devices": distinct, "devices": found}
    return observed


def observe_device(
    raw: bytes, chain: bytes, observed: Observation, vectors: VectorSet, roots: Roots
) -> GPUClaims | None:
    """Every field, every link of the chain, and the verdict."""
    found = observed.found
    found["signature_valid"] = False
    report = observed.attempt(lambda: SPDMReport.parse(raw, trailing="zeros"))
    if report is None:
        return None
    kind: Kind = "gpu" if len(report.measurements) > 31 else "switch"
    found |= _report_fields(report, raw)
    loaded = observed.attempt(lambda: [certificate(der, "device chain") for der in parse_chain(chain)])
    if loaded is None:
        return None
    now = vectors.moment(window(link) for link in loaded)
    found |= _chain_fields(loaded, observed, roots, now)
    found["fwid_match"] = (
        found["report_fwid"] == found["leaf_fwid"] if found["report_fwid"] and kind == "gpu" else None
    )
    claims = observed.attempt(lambda: _verify(report, chain, kind, roots, now))
    found["signature_valid"] = claims is not None
    return claims


def observe_rim(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """A manifest: digest, signature and chain each by itself, then the verdict."""
    observed = Observation()
    raw = vectors.read(vector, "rim")
    rim = observed.attempt(lambda: RIM.parse(raw))
    if rim is None:
        return observed
    chain = [certificate(der, "rim chain") for der in rim.certificates]
    now = vectors.moment(window(link) for link in chain)
    observed.attempt(lambda: verify_rim(raw, roots=roots, now=now))
    unsigned = Observation()
    unsigned.attempt(lambda: check_signed(rim.signed_info, rim.signature, chain[0], "rim"))
    found = observed.found
    found |= {"version": rim.version, "product": rim.product, "swid_name": rim.name}
    found |= {"digest_ok": sha384(rim.content).digest() == rim.digest, "signature_ok": not unsigned.refusals}
    found |= {"chain_links": _links(chain), "active_indices": sorted(rim.golden)}
    found["root_is_corim_root"] = _is_pinned(chain[-1], Anchor.NVIDIA_RIM, roots)
    found["certificates"] = [[_name(link), *(at.date().isoformat() for at in window(link))] for link in chain]
    return observed


def moment_of(rim: bytes, vectors: VectorSet) -> datetime:
    """When to judge a manifest: within the time of its own certificates."""
    chain = [certificate(der, "rim chain") for der in RIM.parse(rim).certificates]
    return vectors.moment(window(link) for link in chain)


def _verify(report: SPDMReport, chain: bytes, kind: Kind, roots: Roots, now: datetime) -> GPUClaims:
    missing: Literal["accept", "refuse"] = "accept" if report.fwid is None else "refuse"
    return verify_device(
        report, chain, nonce=report.nonce, roots=roots, now=now, kind=kind, missing_fwid=missing
    )


def _comparison(vector: Vector, vectors: VectorSet, roots: Roots, claims: GPUClaims) -> dict[str, Any]:
    rims: list[GoldenValues | None] = []
    for role in ("driver_rim", "vbios_rim"):
        if role not in vector.paths:
            rims.append(None)
            continue
        raw = vectors.read(vector, role)
        rims.append(verify_rim(raw, roots=roots, now=moment_of(raw, vectors)))
    driver, vbios = rims
    if vbios is None:
        raise VerifyError("vbios rim: missing")
    active = len(vbios.values) + (len(driver.values) if driver is not None else 0)
    compare(claims, driver, vbios)
    return {"active_golden_values": active, "mismatches": []}


def _report_fields(report: SPDMReport, raw: bytes) -> dict[str, Any]:
    blocks = report.measurements
    fields: dict[str, Any] = {
        "request": {"header": raw[:4].hex(), "nonce": report.nonce.hex(), "slot": report.slot},
        "response": {
            "header": raw[37:41].hex(),
            "blocks": len(blocks),
            "nonce": report.responder_nonce.hex(),
            "measurement_indices": f"{blocks[0].index}..{blocks[-1].index}",
            "opaque_types": [field.type for field in report.opaque],
        },
        "trailing_bytes_after_signature": len(raw) - len(report.pack()),
    }
    for name in ("driver_version", "vbios_version", "project", "project_sku", "chip_sku"):
        fields[name] = getattr(report, name) or ""
    fields |= {name: (report.field(opaque) or b"").hex() for name, opaque in _RAW.items()}
    if report.switch_pdis:
        fields["switch_pdis"] = [pdi.hex() for pdi in report.switch_pdis]
    return fields


def _chain_fields(
    chain: list[x509.Certificate], observed: Observation, roots: Roots, now: datetime
) -> dict[str, Any]:
    leaf = chain[0]
    raw = {
        extension.oid.dotted_string: extension.value.value
        for extension in leaf.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    oid = next((oid for oid in (TCB_INFO, COMPOSITE_DEVICE_ID) if oid in raw), "")
    observed.attempt(
        lambda: verify_chain(
            chain, anchor=Anchor.NVIDIA_DEVICE, roots=roots, now=now, names=[_name(link) for link in chain]
        )
    )
    return {
        "leaf_fwid": fwids(oid, raw[oid])[0].hex() if oid else "",
        "leaf_fwid_oid": oid,
        "leaf_subject": ",".join(
            f"{_SHORT.get(a.oid, a.oid.dotted_string)}={a.value!s}"
            for rdn in reversed(leaf.subject.rdns)
            for a in rdn
        ),
        "ueid": str(leaf.serial_number),
        "model": _name(chain[1]),
        "chain_links": [*_links(chain)[:-1], "self"] if all(_links(chain)) else _links(chain),
        "root_pinned": _is_pinned(chain[-1], Anchor.NVIDIA_DEVICE, roots),
    }


_SHORT = {
    NameOID.COMMON_NAME: "CN",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.COUNTRY_NAME: "C",
}


def _links(chain: list[x509.Certificate]) -> list[int]:
    """1 for every certificate its successor issued, and for a root that issued itself."""
    found = []
    for link, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        try:
            check_issued(link, issuer, _name(link))
            found.append(1)
        except VerifyError:
            found.append(0)
    return found


def _is_pinned(root: x509.Certificate, anchor: Anchor, roots: Roots) -> bool:
    return sha256(root.public_bytes(Encoding.DER)).digest() in roots.pins(anchor)


def _name(link: x509.Certificate) -> str:
    return str(link.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
