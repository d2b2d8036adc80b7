"""Mirrors evidence/kbs.py, evidence/kbs_json.py and evidence/initdata.py."""

import base64
import copy
import json
from dataclasses import replace
from hashlib import sha256, sha384, sha512
from typing import Any

import pytest

from strongroom.errors import FormatError, StrongroomError
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.initdata import InitData, fitted
from strongroom.evidence.kbs import TEES, KBSEvidence, KBSTee, old_name, tee_named
from strongroom.evidence.kbs_json import from_json, pack_additional, parse_additional, to_json
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tpm import Scheme, TPMQuote, TPMSignature
from strongroom.wire.canonical import pack_json, parse_json
from strongroom.wire.pem import certificates, pem
from tests import VECTORS
from tests.fakes.composite import GPU, LOG, gpus
from tests.fakes.kbs import MACHINES, Machine
from tests.fakes.silicon import silicon

DIGEST = bytes(range(48))
DEVICES = gpus([GPU], nonce=DIGEST[:32])
needs_vectors = pytest.mark.skipif(not VECTORS.exists(), reason="no real vectors beside this checkout")


def value(tee: KBSTee) -> Any:
    return json.loads(pack_json(to_json(Machine(tee).primary(DIGEST))))


@pytest.mark.parametrize("tee", MACHINES)
def test_a_round_trip_keeps_what_is_signed(tee: KBSTee) -> None:
    evidence = Machine(tee).primary(DIGEST)
    again = from_json(tee, parse_json(pack_json(to_json(evidence)), "evidence"))
    if tee == "az-snp-vtpm":  # the one shape without room for the issuers
        vcek = CertificateTable.parse(evidence.certificates).vcek
        evidence = replace(evidence, certificates=CertificateTable(vcek=vcek).pack())
    assert again == evidence


def test_the_spelling_of_each() -> None:
    tdx, azure, tpm = value("tdx"), value("az-snp-vtpm"), value("tpm")
    assert tdx.keys() == {"cc_eventlog", "quote"} and tdx["cc_eventlog"] is None
    assert azure.keys() == {"version", "tpm_quote", "hcl_report", "vcek"} and azure["version"] == 2
    assert len(base64.urlsafe_b64decode(azure["hcl_report"])) == 2600  # padded
    assert len(bytes.fromhex(azure["tpm_quote"]["signature"])) == 256  # the bare number
    assert [len(text) for text in azure["tpm_quote"]["pcrs"]] == [64] * 24
    assert value("az-tdx-vtpm").keys() == {"version", "tpm_quote", "hcl_report", "td_quote"}
    assert tpm.keys() == {"tpm_quote", "ak_public"}
    assert TPMSignature.parse(base64.b64decode(tpm["tpm_quote"]["signature"])).scheme is Scheme.RSASSA


def test_a_log_travels_with_a_quote() -> None:
    evidence = replace(Machine("tdx").primary(DIGEST), log=b"a log")
    assert from_json("tdx", to_json(evidence)) == evidence


def test_older_and_newer_agents_are_read() -> None:
    azure = value("az-snp-vtpm")
    assert not from_json("az-snp-vtpm", azure | {"version": 1}).binds_user_data
    from_json("az-snp-vtpm", azure | {"cc_eventlog": "AAAA"})
    from_json("tpm", value("tpm") | {"report_data": "AAAA"})
    quote = value("tdx")
    del quote["cc_eventlog"]
    from_json("tdx", quote)


@pytest.mark.parametrize("tee", MACHINES)
def test_no_member_may_be_missing_and_none_unknown(tee: KBSTee) -> None:
    intact = value(tee)
    for name in intact:
        if name != "cc_eventlog":
            with pytest.raises(FormatError):
                from_json(tee, {key: one for key, one in intact.items() if key != name})
        with pytest.raises(FormatError):
            from_json(tee, intact | {name: 5})
    with pytest.raises(FormatError):
        from_json(tee, intact | {"more": 1})
    others: list[Any] = [None, [], "text", 5, {}]
    for other in others:
        with pytest.raises(FormatError):
            from_json(tee, other)


@pytest.mark.parametrize(
    ("tee", "path", "changed"),
    [
        ("az-snp-vtpm", ("version",), 3),
        ("az-snp-vtpm", ("version",), True),
        ("az-snp-vtpm", ("hcl_report",), "_-+/"),
        ("az-snp-vtpm", ("hcl_report",), "_-A"),
        ("az-snp-vtpm", ("tpm_quote", "signature"), ""),
        ("az-snp-vtpm", ("tpm_quote", "signature"), "0g"),
        ("az-snp-vtpm", ("tpm_quote", "pcrs"), ["00" * 32] * 23),
        ("az-snp-vtpm", ("tpm_quote", "pcrs"), ["00" * 31] * 24),
        ("az-snp-vtpm", ("vcek",), ""),
        ("tdx", ("quote",), "_-8="),
        ("tpm", ("ak_public",), ""),
    ],
)
def test_a_malformed_member_is_named(tee: KBSTee, path: tuple[str, ...], changed: Any) -> None:
    broken = copy.deepcopy(value(tee))
    at = broken
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = changed
    with pytest.raises(FormatError):
        from_json(tee, broken)


def test_an_azure_chip_needs_its_certificate() -> None:
    evidence = replace(Machine("az-snp-vtpm").primary(DIGEST), certificates=b"")
    with pytest.raises(FormatError, match="az-snp-vtpm evidence: no vcek"):
        to_json(evidence)


@needs_vectors
def test_a_genuine_tpm_s_evidence_is_read() -> None:
    raw = json.loads((VECTORS / "tpm/trustee-swtpm/evidence.json").read_text())
    evidence = from_json("tpm", raw)
    assert evidence.tpm is not None
    assert TPMQuote.parse(evidence.tpm.attest).extra_data[48:] == bytes(16)
    assert to_json(evidence) == raw


@needs_vectors
@pytest.mark.parametrize(
    ("folder", "tee", "beside", "file"),
    [
        ("snp-milan-v2json", "az-snp-vtpm", "vcek", "vcek.der"),
        ("tdx-v1json", "az-tdx-vtpm", "td_quote", "td_quote.bin"),
    ],
)
def test_genuine_azure_evidence_is_read(folder: str, tee: KBSTee, beside: str, file: str) -> None:
    part = VECTORS / "azure" / folder
    raw: Any = {
        "version": 2,
        "tpm_quote": {
            "signature": (part / "tpm_quote.sig").read_bytes().hex(),
            "message": (part / "tpm_quote.msg").read_bytes().hex(),
            "pcrs": json.loads((part / "pcrs_sha256.json").read_text()),
        },
        "hcl_report": base64.urlsafe_b64encode((part / "hcl_report.bin").read_bytes()).decode(),
        beside: base64.urlsafe_b64encode((part / file).read_bytes()).decode(),
    }
    evidence = from_json(tee, raw)
    assert evidence.report == (part / "hcl_report.bin").read_bytes()
    assert to_json(evidence) == raw


# Devices and the event log


def test_devices_and_log_round_trip() -> None:
    text = pack_additional(DEVICES, LOG)
    assert parse_additional(text) == (DEVICES, LOG)
    assert parse_additional("") == ((), None)
    assert parse_additional(pack_additional((), LOG)) == ((), LOG)


def test_devices_as_older_agents_write_them() -> None:
    old = json.loads(pack_additional(DEVICES, None))
    (device,) = old["nvidia"]["device_evidence_list"]
    device["evidence"], device["arch"] = DEVICES[0].report.hex(), "Hopper"
    assert parse_additional(json.dumps(old)) == (DEVICES, None)


def test_a_switch_is_told_from_a_gpu() -> None:
    switch = GPUEvidence("ls10", DEVICES[0].certificates, DEVICES[0].report)
    assert '"LS10"' in pack_additional([switch], None)
    assert parse_additional(pack_additional([switch], None))[0] == (switch,)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        "null",
        '{"sampledevice":{"svn":"2","report_data":""}}',
        '{"nvidia":[]}',
        '{"nvidia":{"device_evidence_list":[]}}',
        '{"nvidia":{"device_evidence_list":[{}]}}',
        '{"nvidia":{"device_evidence_list":[{"arch":"VOLTA","uuid":"","evidence":"","certificate":""}]}}',
        '{"nvidia":{"device_evidence_list":[{"arch":1,"uuid":"","evidence":"","certificate":""}]}}',
        '{"nvidia":{"device_evidence_list":[{"arch":"LS10","uuid":"","evidence":"","certificate":"AAAA"}]}}',
        '{"strongroom":{}}',
        '{"strongroom":{"events":{}}}',
        '{"strongroom":{"events":[]},"more":1}',
        "\udcff",
    ],
)
def test_other_devices_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_additional(text)


def test_every_cut_of_it_is_refused() -> None:
    text = pack_additional(DEVICES, LOG)
    for n in range(1, len(text), 97):
        with pytest.raises(FormatError):
            parse_additional(text[:n])


# Names and parts


def test_names_of_old_and_new_releases() -> None:
    assert [tee_named(tee) for tee in TEES] == [*TEES]
    assert tee_named("azsnpvtpm") == "az-snp-vtpm" and old_name("az-tdx-vtpm") == "aztdxvtpm"
    assert old_name("snp") == "snp"
    assert [tee_named(name) for name in ("sample", "sampledevice", "nvidia", "sgx", "se", "")] == [None] * 6


def test_parts_have_to_fit_the_tee() -> None:
    quoted = Machine("tpm").primary(DIGEST)
    parts: list[dict[str, Any]] = [{"tee": "snp"}, {"tee": "tdx"}, {"tee": "az-snp-vtpm"}, {"key": b""}]
    for wrong in [*parts, {"tpm": None}]:
        with pytest.raises(FormatError, match="kbs evidence"):
            replace(quoted, **wrong)
    assert quoted.tpm is not None
    with pytest.raises(FormatError, match="16 pcrs, want all 24"):
        replace(quoted, tpm=replace(quoted.tpm, pcrs=quoted.tpm.pcrs[:16]))
    with pytest.raises(FormatError):
        KBSEvidence(tee="tpm")


# Init-data

TEXT = """algorithm = "{}"\nversion = "0.1.0"\n[data]\n"aa.toml" = '''a = 1\n'''\n"x" = "y"\n"""


@pytest.mark.parametrize(("name", "hash"), [("sha256", sha256), ("sha384", sha384), ("sha512", sha512)])
def test_the_digest_of_init_data_is_over_its_very_bytes(name: str, hash: Any) -> None:
    text = TEXT.format(name)
    parsed = InitData.parse(text)
    assert (parsed.algorithm, dict(parsed.data)) == (name, {"aa.toml": "a = 1\n", "x": "y"})
    assert parsed.digest == hash(text.encode()).digest()
    assert InitData.parse(text + "\n").digest != parsed.digest
    assert parsed.claims() == {"aa.toml": {"a": 1}, "x": "y"}


def test_what_toml_has_and_our_json_has_not_stays_text() -> None:
    text = 'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"a.toml" = "x = 1.5"\n"b.toml" = "?"\n'
    assert InitData.parse(text).claims() == {"a.toml": "x = 1.5", "b.toml": "?"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        TEXT.format("md5"),
        TEXT.format("sha256").replace("0.1.0", "0.2.0"),
        TEXT.format("sha256") + "[more]\n",
        'algorithm = "sha256"\nversion = "0.1.0"\ndata = 5\n',
        'algorithm = "sha256"\nversion = "0.1.0"\n[data]\nx = 5\n',
        'algorithm = "sha256"\nversion = "0.1.0"\n',
        "#" * (1 << 20) + "x",
    ],
)
def test_other_init_data_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="init-data"):
        InitData.parse(text)


def test_a_digest_is_cut_or_filled_to_its_field() -> None:
    assert (fitted(DIGEST, 32), fitted(DIGEST, 64)) == (DIGEST[:32], DIGEST + bytes(16))


def test_pem_is_what_is_read_back() -> None:
    table = CertificateTable.parse(silicon().certificates())
    chain = tuple(der for der in (table.vcek, table.ask, table.ark) if der is not None)
    assert certificates(pem(chain), "chain") == chain
    assert pem([]) == b""


@pytest.mark.parametrize("tee", MACHINES)
def test_no_evidence_of_another_kind_is_taken(tee: KBSTee) -> None:
    for other in MACHINES:
        if other != tee:
            with pytest.raises(StrongroomError):
                from_json(tee, value(other))
