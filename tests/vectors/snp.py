"""SNP reports and launch measurements, as Strongroom sees them."""

import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import FormatError
from strongroom.evidence import snp_bits
from strongroom.evidence.snp import TCB, SigningKey, SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.measure.ovmf import OVMF
from strongroom.measure.snp_launch import VMM, KernelHashes, launch_digest
from strongroom.verify.amd_chain import verify_chain
from strongroom.verify.amd_leaf import Leaf
from strongroom.verify.certificates import load
from strongroom.verify.roots import Roots
from strongroom.verify.snp import Endorsement, verify_report
from tests.vectors.index import Vector, VectorSet, certificates, window
from tests.vectors.judge import Observation

_LEVELS = {"blSPL": "bootloader", "teeSPL": "tee", "snpSPL": "snp", "ucodeSPL": "microcode", "fmcSPL": "fmc"}
_WORDS = ("policy", "platform_info", "key_info", "launch_mit_vector", "current_mit_vector")
_ARC = "1.3.6.1.4.1.3704.1"
_UNUSED = {"spl4": f"{_ARC}.3.4", "spl5": f"{_ARC}.3.5", "spl6": f"{_ARC}.3.6", "spl7": f"{_ARC}.3.7"}


def observe_report(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """A report, and where a leaf is beside it who endorses it."""
    observed = Observation()
    report = observed.attempt(lambda: SNPReport.parse(vectors.read(vector, "report")))
    if report is not None:
        observed.found["fields"] = report_fields(report)
    if "leaf" in vector.paths:
        observe_leaf(vectors.read(vector, "leaf"), report, observed, vectors, roots, _given(vector, vectors))
    return observed


def observe_leaf(
    leaf: bytes,
    report: SNPReport | None,
    observed: Observation,
    vectors: VectorSet,
    roots: Roots,
    issuers: list[x509.Certificate],
) -> Endorsement | None:
    """The chain by itself, what the leaf says, and the verdict on the report under it."""
    (certificate,) = certificates(leaf)
    issuers = issuers or vectors.path_of(certificate)
    now = vectors.moment([window(certificate)])
    found = observed.found
    found["leaf_not_before"], found["leaf_not_after"] = (at.isoformat() for at in window(certificate))
    is_vlek = report is not None and report.signing_key == SigningKey.VLEK
    kind = "vlek" if is_vlek else "vcek"
    found["leaf_kind"] = f"SEV-{kind.upper()}"
    extensions = observed.attempt(lambda: leaf_extensions(leaf, is_vlek))
    found["leaf_exts"] = extensions
    found["chain_valid"] = found["signature_valid"] = False
    if len(issuers) != 2 or extensions is None:
        return None
    ask, ark = (issuer.public_bytes(Encoding.DER) for issuer in issuers)
    product = str(extensions["product_name"]).partition("-")[0]
    root = observed.attempt(
        lambda: verify_chain(
            load(leaf, kind), load(ask, "ask"), load(ark, "ark"),
            kind="vlek" if is_vlek else "vcek", product=product, roots=roots, now=now,
        )
    )  # fmt: skip
    found["chain_valid"] = root is not None
    if report is None:
        return None
    own = CertificateTable(vlek=leaf if is_vlek else None, vcek=None if is_vlek else leaf, ask=ask, ark=ark)
    endorsement = observed.attempt(lambda: verify_report(report, own, roots=roots, now=now))
    found["signature_valid"] = endorsement is not None
    if endorsement is not None:
        found["product"] = endorsement.product
        reported = report.reported_tcb.levels()
        found["tcb_ext_matches_reported_tcb"] = reported == {
            level: extensions[name] for name, level in _LEVELS.items() if name in extensions
        }
        hwid = extensions.get("hwid")
        found["hwid_matches_chip_id"] = (
            None if hwid is None else bytes.fromhex(hwid).ljust(64, b"\0") == report.chip_id
        )
    return endorsement


def report_fields(report: SNPReport) -> dict[str, Any]:
    """Every field of a report in the words of an index."""
    fields: dict[str, Any] = {
        name: value.hex() if isinstance(value, bytes) else value
        for name in report.__slots__
        if isinstance(value := getattr(report, name), bytes | int)
    }
    fields |= {name: hex(getattr(report, name)) for name in _WORDS}
    fields["policy_bits"] = {
        "abi_minor": report.policy & 0xFF,
        "abi_major": report.policy >> 8 & 0xFF,
        **snp_bits.named(report.policy, snp_bits.POLICY),
    }
    fields["platform_info_bits"] = snp_bits.named(report.platform_info, snp_bits.PLATFORM)
    fields |= snp_bits.named(report.key_info, snp_bits.KEY)
    fields["signing_key"] = report.signing_key.name if report.signing_key is not None else None
    for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        fields[name] = tcb_fields(getattr(report, name))
    fields["current_version"], fields["committed_version"] = str(report.current), str(report.committed)
    return fields


def tcb_fields(tcb: TCB) -> dict[str, Any]:
    return {"raw": tcb.pack().hex(), **tcb.levels()}


def leaf_extensions(der: bytes, is_vlek: bool) -> dict[str, Any]:
    certificate = load(der, "leaf")
    leaf = Leaf(certificate, "leaf")
    raw = {
        extension.oid.dotted_string: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    levels = leaf.levels()
    found: dict[str, Any] = {name: levels[level] for name, level in _LEVELS.items() if level in levels}
    found["struct_version"] = int.from_bytes(raw[f"{_ARC}.1"][2:], "big")
    found["product_name"] = raw[f"{_ARC}.2"][2:].decode()
    found |= {name: int.from_bytes(raw[oid][2:], "big") for name, oid in _UNUSED.items() if oid in raw}
    if is_vlek:
        found["csp_id"] = leaf.csp_id
    else:
        found["hwid"] = leaf.hwid(8 if leaf.product == "Turin" else 64).hex()
    return found


def observe_launch(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """A list of machines and the measurement each must launch with."""
    del roots
    cases = json.loads(vectors.read(vector, "cases"))["cases"]
    observed = Observation({"cases": len(cases)})
    for case in cases:
        digest = observed.attempt(lambda case=case: _launch(case, vector, vectors))  # type: ignore[misc]
        if digest is not None and digest != case["expected_launch_digest"]:
            observed.refusals.append(FormatError(f"{case['name']}: launch digest is {digest}"))
    return observed


def _launch(case: dict[str, Any], vector: Vector, vectors: VectorSet) -> str:
    def blob(name: str) -> bytes:
        return b"" if name == "empty file" else vectors.beside(vector, "cases", name)

    known = case.get("snp_ovmf_hash_str")
    vmm = str(case.get("vmm_type", "qemu")).rpartition(".")[2]
    hashes = None
    if case.get("kernel"):
        hashes = KernelHashes.of(blob(case["kernel"]), blob(case["initrd"]), case["append"])
    return launch_digest(
        OVMF.parse(blob(case["ovmf"])),
        vcpus=case["vcpus"],
        cpu_signature=int(case["vcpu_sig"] or "0", 16),
        hashes=hashes,
        features=int(case["guest_features"], 16),
        vmm=VMM(vmm),
        firmware_digest=bytes.fromhex(known) if known else None,
    ).hex()


def _given(vector: Vector, vectors: VectorSet) -> list[x509.Certificate]:
    return [c for path in vector.paths.get("ca", ()) for c in certificates(vectors.bytes_at(path))]
