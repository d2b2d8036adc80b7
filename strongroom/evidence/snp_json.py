"""The same report and certificates in the JSON shape of the CoCo KBS protocol, release 0.14 and later.

    {"attestation_report": {field: number | [byte, ...] | tcb}, "cert_chain": null | [{"cert_type", "data"}]}

Byte strings are lists of numbers. Everything is converted back into an SNPReport, whose packed form is what
the signature covers: a field this shape could not carry would break the signature, never hide in it.
"""

from collections.abc import Set as AbstractSet
from typing import Final

from strongroom.errors import FormatError
from strongroom.evidence.snp import TCB, FirmwareVersion, SNPReport
from strongroom.evidence.snp_certs import MAX_CERTIFICATE, MAX_ENTRIES, CertificateTable
from strongroom.wire.canonical import JSON

_SUBJECT: Final = "snp evidence"
_OPTIONAL: Final = {"launch_mit_vector", "current_mit_vector"}  # some releases leave them out
_KEYS: Final = _OPTIONAL | {
    "version",
    "guest_svn",
    "policy",
    "family_id",
    "image_id",
    "vmpl",
    "sig_algo",
    "current_tcb",
    "plat_info",
    "key_info",
    "report_data",
    "measurement",
    "host_data",
    "id_key_digest",
    "author_key_digest",
    "report_id",
    "report_id_ma",
    "reported_tcb",
    "cpuid_fam_id",
    "cpuid_mod_id",
    "cpuid_step",
    "chip_id",
    "committed_tcb",
    "current",
    "committed",
    "launch_tcb",
    "signature",
}
_ROLES: Final = {"VCEK": "vcek", "VLEK": "vlek", "ASK": "ask", "ARK": "ark", "CRL": "crl"}


def to_kbs(report_bytes: bytes, table: CertificateTable) -> dict[str, JSON]:
    """The evidence value for a KBS; `report_bytes` is the raw report of 1184 bytes."""
    report = SNPReport.parse(report_bytes)
    chain: list[JSON] = [
        {"cert_type": role, "data": list(der)}
        for role, ours in _ROLES.items()
        if (der := getattr(table, ours)) is not None
    ]
    return {"attestation_report": _report_json(report), "cert_chain": chain or None}


def from_kbs(value: JSON) -> tuple[SNPReport, CertificateTable]:
    """The report and certificates in a KBS evidence value, or FormatError naming the first bad member."""
    evidence = _members(value, _SUBJECT, {"attestation_report", "cert_chain"})
    return _report(evidence["attestation_report"]), _table(evidence["cert_chain"])


def _report_json(report: SNPReport) -> dict[str, JSON]:
    has_cpuid, has_mitigations = report.version >= 3, report.version >= 5
    return {
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy": report.policy,
        "family_id": list(report.family_id),
        "image_id": list(report.image_id),
        "vmpl": report.vmpl,
        "sig_algo": report.signature_algo,
        "current_tcb": _tcb_json(report.current_tcb),
        "plat_info": report.platform_info,
        "key_info": report.key_info,
        "report_data": list(report.report_data),
        "measurement": list(report.measurement),
        "host_data": list(report.host_data),
        "id_key_digest": list(report.id_key_digest),
        "author_key_digest": list(report.author_key_digest),
        "report_id": list(report.report_id),
        "report_id_ma": list(report.report_id_ma),
        "reported_tcb": _tcb_json(report.reported_tcb),
        "cpuid_fam_id": report.cpuid_family if has_cpuid else None,
        "cpuid_mod_id": report.cpuid_model if has_cpuid else None,
        "cpuid_step": report.cpuid_stepping if has_cpuid else None,
        "chip_id": list(report.chip_id),
        "committed_tcb": _tcb_json(report.committed_tcb),
        "current": _firmware_json(report.current),
        "committed": _firmware_json(report.committed),
        "launch_tcb": _tcb_json(report.launch_tcb),
        "launch_mit_vector": report.launch_mit_vector if has_mitigations else None,
        "current_mit_vector": report.current_mit_vector if has_mitigations else None,
        "signature": {
            "r": list(report.signature_r.to_bytes(72, "little")),
            "s": list(report.signature_s.to_bytes(72, "little")),
        },
    }


def _report(value: JSON) -> SNPReport:
    fields = _members(value, f"{_SUBJECT}.attestation_report", _KEYS, optional=_OPTIONAL)
    signature = _members(fields["signature"], f"{_SUBJECT}.signature", {"r", "s"})

    def number(name: str) -> int:
        return _number(fields[name], f"{_SUBJECT}.{name}")

    def or_zero(name: str) -> int:  # null where the report's version has no such field
        return 0 if fields.get(name) is None else number(name)

    def octets(name: str) -> bytes:
        return _octets(fields[name], f"{_SUBJECT}.{name}", 64)

    def tcb(name: str) -> TCB:
        return _tcb(fields[name], f"{_SUBJECT}.{name}")

    return SNPReport(
        version=number("version"),
        guest_svn=number("guest_svn"),
        policy=number("policy"),
        family_id=octets("family_id"),
        image_id=octets("image_id"),
        vmpl=number("vmpl"),
        signature_algo=number("sig_algo"),
        current_tcb=tcb("current_tcb"),
        platform_info=number("plat_info"),
        key_info=number("key_info"),
        report_data=octets("report_data"),
        measurement=octets("measurement"),
        host_data=octets("host_data"),
        id_key_digest=octets("id_key_digest"),
        author_key_digest=octets("author_key_digest"),
        report_id=octets("report_id"),
        report_id_ma=octets("report_id_ma"),
        reported_tcb=tcb("reported_tcb"),
        cpuid_family=or_zero("cpuid_fam_id"),
        cpuid_model=or_zero("cpuid_mod_id"),
        cpuid_stepping=or_zero("cpuid_step"),
        chip_id=octets("chip_id"),
        committed_tcb=tcb("committed_tcb"),
        current=_firmware(fields["current"], f"{_SUBJECT}.current"),
        committed=_firmware(fields["committed"], f"{_SUBJECT}.committed"),
        launch_tcb=tcb("launch_tcb"),
        launch_mit_vector=or_zero("launch_mit_vector"),
        current_mit_vector=or_zero("current_mit_vector"),
        signature_r=_signature_part(signature["r"], f"{_SUBJECT}.signature.r"),
        signature_s=_signature_part(signature["s"], f"{_SUBJECT}.signature.s"),
    )


def _signature_part(value: JSON, at: str) -> int:
    if len(octets := _octets(value, at, 72)) != 72:
        raise FormatError(f"{at}: {len(octets)} bytes, want 72")
    return int.from_bytes(octets, "little")


def _table(value: JSON) -> CertificateTable:
    if value is None:
        return CertificateTable()
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise FormatError(f"{_SUBJECT}.cert_chain: want null or a list of at most {MAX_ENTRIES}")
    found: dict[str, bytes] = {}
    for n, item in enumerate(value):
        at = f"{_SUBJECT}.cert_chain[{n}]"
        entry = _members(item, at, {"cert_type", "data"})
        role = entry["cert_type"]
        name = _ROLES.get(role) if isinstance(role, str) else None
        if name is None:  # "Empty", or {"OTHER": uuid}: nothing we would use
            continue
        if name in found:
            raise FormatError(f"{at}: {role} appears twice")
        found[name] = _octets(entry["data"], f"{at}.data", MAX_CERTIFICATE)
    return CertificateTable(**found)


def _tcb_json(tcb: TCB) -> JSON:
    return {
        "fmc": tcb.fmc,
        "bootloader": tcb.bootloader,
        "tee": tcb.tee,
        "snp": tcb.snp,
        "microcode": tcb.microcode,
    }


def _tcb(value: JSON, at: str) -> TCB:
    levels = _members(value, at, {"fmc", "bootloader", "tee", "snp", "microcode"})
    return TCB(
        fmc=None if levels["fmc"] is None else _number(levels["fmc"], f"{at}.fmc"),
        bootloader=_number(levels["bootloader"], f"{at}.bootloader"),
        tee=_number(levels["tee"], f"{at}.tee"),
        snp=_number(levels["snp"], f"{at}.snp"),
        microcode=_number(levels["microcode"], f"{at}.microcode"),
    )


def _firmware_json(version: FirmwareVersion) -> JSON:
    return {"major": version.major, "minor": version.minor, "build": version.build}


def _firmware(value: JSON, at: str) -> FirmwareVersion:
    parts = _members(value, at, {"major", "minor", "build"})
    return FirmwareVersion(
        major=_number(parts["major"], f"{at}.major"),
        minor=_number(parts["minor"], f"{at}.minor"),
        build=_number(parts["build"], f"{at}.build"),
    )


def _members(
    value: JSON, at: str, keys: AbstractSet[str], *, optional: AbstractSet[str] = frozenset()
) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise FormatError(f"{at}: not an object")
    if missing := keys - optional - value.keys():
        raise FormatError(f"{at}: no {min(missing)}")
    if unknown := value.keys() - keys:
        raise FormatError(f"{at}: unknown key {ascii(min(unknown))[:40]}")
    return value


def _number(value: JSON, at: str) -> int:
    if type(value) is not int or value < 0:  # bool is an int: type() on purpose
        raise FormatError(f"{at}: got {ascii(value)[:40]}, want a whole number")
    return value


def _octets(value: JSON, at: str, limit: int) -> bytes:
    if not isinstance(value, list) or len(value) > limit:
        raise FormatError(f"{at}: want a list of at most {limit} bytes")
    for item in value if {*map(type, value)} - {int} else ():  # bool is an int: type() on purpose
        if type(item) is not int:
            raise FormatError(f"{at}: holds {ascii(item)[:40]}, want bytes 0..255")
    try:
        return bytes(value)  # type: ignore[arg-type]  # whole numbers, all of them
    except ValueError:
        outside = next(item for item in value if item not in range(256))
        raise FormatError(f"{at}: holds {ascii(outside)[:40]}, want bytes 0..255") from None
