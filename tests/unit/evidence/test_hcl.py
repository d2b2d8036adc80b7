"""Mirrors strongroom/evidence/hcl.py."""

import json
from dataclasses import replace
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.hcl import HCLReport, ReportType, RuntimeData
from strongroom.evidence.tpm import Hash
from tests import VECTORS
from tests.fakes.silicon import silicon
from tests.fakes.tpm import hcl, rsa_tpm, runtime_data

INDEX: Final = VECTORS / "index.json"
REAL: Final = [
    vector
    for vector in (json.loads(INDEX.read_text())["vectors"] if INDEX.exists() else [])
    if vector["kind"] in ("azure-hcl", "azure-hcl-negative")
]
JSON: Final = runtime_data(rsa_tpm())
REPORT: Final = hcl(JSON, silicon().report(bytes(64)))
DATA: Final = REPORT.pack()


@pytest.mark.skipif(not REAL, reason="no real vectors beside this checkout")
def test_all_real_reports_were_found() -> None:
    assert len(REAL) == 7


@pytest.mark.parametrize("vector", REAL, ids=lambda vector: vector["id"])
def test_a_real_report_gives_the_listed_fields_and_its_own_bytes(vector: dict[str, Any]) -> None:
    data, expect = (VECTORS / vector["files"]["hcl"]).read_bytes(), vector["expect"]
    report = HCLReport.parse(data)
    assert report.pack() == data
    runtime = RuntimeData.parse(report.variable_data)
    length = len(report.variable_data)
    at = 0x50 if report.report_type is ReportType.SNP else 128
    report_data = report.hardware_report[at : at + 64]
    found = {
        "hcl_version": report.version,
        "report_size": int.from_bytes(data[8:12], "little"),
        "request_type": 2,
        "report_type": report.report_type.name,
        "hash_type": 1 if report.hash_type is Hash.SHA256 else None,
        "variable_data_size": length,
        "trailing_bytes": len(data) - 1236 - length,
        "variable_data_hash": report.report_data[:32].hex(),
        "report_data": report_data.hex(),
        "report_data_bound": report.report_data == report_data,
        "key_ids": list(runtime.keys),
        "vm_configuration": dict(runtime.configuration),
    }
    assert found == found | {name: value for name, value in expect.items() if name in found}
    if "user_data" in expect:
        assert runtime.user_data == bytes.fromhex(expect["user_data"])


@pytest.mark.parametrize("hash", [Hash.SHA256, Hash.SHA384, Hash.SHA512])
def test_every_hash_binds(hash: Hash) -> None:
    report = replace(REPORT, hash_type=hash)
    assert HCLReport.parse(report.pack()) == report
    assert report.report_data == hash.digest(JSON) + bytes(64 - hash.size)


def test_only_whole_reports_parse() -> None:
    used = 1236 + len(JSON)
    for n in range(used):
        with pytest.raises(FormatError, match="hcl report"):
            HCLReport.parse(DATA[:n])
    for n in (used, used + 1, 2048, 4096):
        assert HCLReport.parse(DATA[:used].ljust(n, b"\0")).size == n
    with pytest.raises(FormatError, match="got 4097 bytes, want at most 4096"):
        HCLReport.parse(DATA.ljust(4097, b"\0"))


def test_a_changed_bit_is_refused_or_kept() -> None:
    for bit in range(8 * len(DATA)):
        changed = bytearray(DATA)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            parsed = HCLReport.parse(bytes(changed))
        except FormatError as error:
            assert str(error).startswith("hcl report")  # noqa: PT017
        else:
            assert parsed.pack() == changed


@pytest.mark.parametrize(
    ("at", "new", "why"),
    [
        (0, b"HCLB", "starts with b'HCLB'"),
        (4, b"\3", "version is 3, want 1 or 2"),
        (8, b"\1", "its sizes"),
        (12, b"\3", "request type is 3, want 2"),
        (16, b"\1", "reserved bytes"),
        (1216, b"\1", "its sizes"),
        (1220, b"\2", "its sizes"),
        (1224, b"\3", "report type is 3"),
        (1228, b"\4", "hash type is 4"),
        (1232, b"\xff\xff\xff\xff", "want 4294967295"),
        (2599, b"\1", "reserved bytes"),
    ],
)
def test_what_no_paravisor_writes_is_refused(at: int, new: bytes, why: str) -> None:
    data = bytearray(DATA)
    data[at : at + len(new)] = new
    with pytest.raises(FormatError, match=why):
        HCLReport.parse(bytes(data))


def test_a_tdreport_is_followed_by_zeros() -> None:
    report = hcl(JSON, bytes(1024), ReportType.TDX)
    assert HCLReport.parse(report.pack()) == report
    data = bytearray(report.pack())
    data[32 + 1024] = 1
    with pytest.raises(FormatError, match="tdreport is followed by 01000"):
        HCLReport.parse(bytes(data))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hash_type": Hash.SHA1}, "hash is sha1"),
        ({"hardware_report": bytes(1024)}, "hardware report is 1024 bytes, want 1184"),
        ({"variable_data": b""}, "0 bytes of json"),
        ({"size": 1300}, "bytes of json in 1300"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_no_way_to_build_a_bad_report(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        replace(REPORT, **change)


KEY: Final[dict[str, Any]] = json.loads(JSON)["keys"][0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"keys": None}, "an object with a list of keys"),
        ({"keys": [KEY] * 9}, "9 keys, want at most 8"),
        ({"keys": [KEY, KEY]}, "two keys have one kid"),
        ({"keys": ["a"]}, r"keys\[0\]: want an RSA key"),
        ({"keys": [KEY | {"kty": "EC"}]}, "want an RSA key"),
        ({"keys": [KEY | {"n": 1}]}, "must be text"),
        ({"keys": [KEY | {"n": KEY["n"] + "="}]}, "not unpadded base64url"),
        ({"keys": [KEY | {"n": "AQAB"}]}, "modulus of 3 bytes"),
        ({"keys": [KEY | {"n": "A" * 342}]}, "modulus of 256 bytes"),
        ({"keys": [KEY | {"e": ""}]}, "exponent is , want"),
        ({"keys": [KEY | {"e": "AAEAAQ"}]}, "exponent is 00010001"),
        ({"keys": [KEY | {"e": "AAAA"}]}, "exponent is 000000"),
        ({"keys": [KEY | {"key_ops": "sign"}]}, "key_ops must be a list"),
        ({"keys": [KEY | {"key_ops": [1]}]}, "key_ops must be a list"),
        ({"vm-configuration": []}, "vm-configuration is not an object"),
        ({"user-data": "00" * 63}, "user-data is not 128 hexadecimal digits"),
        ({"user-data": "0g" * 64}, "user-data is not 128 hexadecimal digits"),
        ({"user-data": None}, "user-data is not 128 hexadecimal digits"),
    ],
)
def test_other_json_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        RuntimeData.parse(json.dumps(json.loads(JSON) | change).encode())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", JSON + b"x", JSON.replace(b'"user-data"', b'"keys"'), b"\xff"]
)
def test_what_is_not_one_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="hcl json"):
        RuntimeData.parse(data)


def test_what_the_configuration_says() -> None:
    runtime = RuntimeData.parse(JSON)
    assert (runtime.flag("secure-boot"), runtime.flag("console-enabled")) == (True, False)
    assert (runtime.flag("tpm-persisted"), runtime.text("vmUniqueId")) == (None, "A-1")
    with pytest.raises(FormatError, match="vmUniqueId is not true or false"):
        runtime.flag("vmUniqueId")
    with pytest.raises(FormatError, match="secure-boot is not text"):
        runtime.text("secure-boot")


def test_old_firmware_has_no_user_data() -> None:
    value = json.loads(JSON)
    del value["user-data"]
    assert RuntimeData.parse(json.dumps(value).encode()).user_data is None
