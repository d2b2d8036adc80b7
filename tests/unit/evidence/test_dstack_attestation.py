"""Mirrors strongroom/evidence/dstack_attestation.py.

Real evidence of both encodings was read with this code and packs to the same bytes; what stands here are pieces of
the second encoding as a TDX guest wrote them, and evidence of our own.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from strongroom.errors import FormatError, StrongroomError
from strongroom.evidence.dstack_attestation import SNP, TDX, Attestation, NitroEnclave, NitroTPM
from strongroom.evidence.dstack_log import LogEntry, RuntimeEvent
from strongroom.wire.messagepack import pack_messagepack, parse_messagepack

EVENTS = (RuntimeEvent(name="app-id", payload=bytes(20)), RuntimeEvent(name="system-ready", payload=b""))
LOG = (
    LogEntry(imr=0, event_type=10, digest=bytes([9]) * 48, event="acpi-rsdp", payload=b"ACPI DATA"),
    LogEntry(imr=1, event_type=4, digest=bytes([8]) * 48, event="", payload=b"firmware"),
    *(event.entry for event in EVENTS),
)
TDX_ONE = Attestation(
    platform=TDX(quote=bytes(range(256)), event_log=LOG),
    report_data=bytes(range(64)),
    runtime_events=EVENTS,
    config='{"cpu_count":2}',
)
SNP_ONE = replace(
    TDX_ONE, platform=SNP(report=bytes(1184), cert_chain=(b"-----BEGIN", b"\x30\x82"), mr_config="{}")
)
OTHERS = [replace(TDX_ONE, platform=kind(document=b"doc")) for kind in (NitroEnclave, NitroTPM)]
ALL = [TDX_ONE, SNP_ONE, *OTHERS]

# the last event of a log, and of the runtime events, as release 0.6 writes them
REAL_ENTRY = bytes.fromhex(
    "85a3696d7203aa6576656e745f74797065ce08000001a6646967657374c4301a76b2a80a0be71eae59f80945d876351a7a3f"
    "b8e9fd1ff1cede5734aa84ea11fd72b4edfbb6f04e5a85edd114c751bda56576656e74ac73797374656d2d7265616479ad65"
    "76656e745f7061796c6f6164c400"
)
REAL_EVENT = bytes.fromhex("82a56576656e74ac73797374656d2d7265616479a77061796c6f6164c400")
REAL_START = bytes.fromhex(
    "83a776657273696f6e01a8706c6174666f726d82a46b696e64a3746478a46461746182a571756f7465dc"
)


@pytest.mark.parametrize("attestation", ALL)
def test_both_encodings_make_a_round_trip(attestation: Attestation) -> None:
    assert Attestation.parse(attestation.pack_v0()) == attestation
    assert Attestation.parse(attestation.pack_v1()) == attestation


def test_the_first_encoding_byte_by_byte() -> None:
    small = replace(
        SNP_ONE, platform=SNP(report=b"R", cert_chain=(b"C",), mr_config="{}"), runtime_events=(), config="x"
    )
    assert (
        small.pack_v0()
        == bytes.fromhex("0003" + "0452" + "04" + "0443" + "087b7d" + "00") + small.report_data + b"\4x"
    )


def test_the_second_encoding_as_a_real_guest_writes_it() -> None:
    packed = TDX_ONE.pack_v1()
    assert packed.startswith(REAL_START)
    assert REAL_ENTRY in packed
    assert REAL_EVENT in packed
    value: Any = parse_messagepack(packed, "x", max_depth=8)
    assert list(value) == ["version", "platform", "stack"]
    assert value["stack"]["data"]["report_data"] == list(range(64))


def test_bytes_are_read_where_numbers_are_written() -> None:
    value: Any = parse_messagepack(SNP_ONE.pack_v1(), "x")
    data, stack = value["platform"]["data"], value["stack"]["data"]
    data["report"] = bytes(data["report"])
    data["cert_chain"] = [bytes(blob) for blob in data["cert_chain"]]
    stack["report_data"] = bytes(stack["report_data"])
    stack["runtime_events"] = [
        event | {"payload": list(event["payload"])} for event in stack["runtime_events"]
    ]
    assert Attestation.parse(pack_messagepack(value)) == SNP_ONE


def test_a_pod_s_payload_is_only_in_the_second() -> None:
    pod = replace(TDX_ONE, payload="{}")
    assert Attestation.parse(pod.pack_v1()) == pod
    with pytest.raises(FormatError, match="no payload"):
        pod.pack_v0()


def test_events_of_version_2_are_only_in_the_second() -> None:
    event = RuntimeEvent(name="app-id", payload=b"x", version=2)
    newer = replace(TDX_ONE, runtime_events=(event,))
    logged = replace(TDX_ONE, platform=TDX(quote=b"", event_log=(event.entry,)))
    for attestation in (newer, logged):
        assert Attestation.parse(attestation.pack_v1()) == attestation
        with pytest.raises(FormatError, match="version 2"):
            attestation.pack_v0()


def test_stripped_keeps_what_cannot_be_computed() -> None:
    short = TDX_ONE.stripped
    assert isinstance(short.platform, TDX)
    assert [(entry.event, len(entry.digest)) for entry in short.platform.event_log] == [
        ("acpi-rsdp", 48), ("app-id", 0), ("system-ready", 0),
    ]  # fmt: skip
    assert Attestation.parse(short.pack_v0()) == Attestation.parse(short.pack_v1()) == short
    assert SNP_ONE.stripped == SNP_ONE


@pytest.mark.parametrize("attestation", ALL)
def test_every_cut_is_refused(attestation: Attestation) -> None:
    for packed in (attestation.pack_v0(), attestation.pack_v1()):
        for n in range(len(packed)):
            with pytest.raises(FormatError):
                Attestation.parse(packed[:n])
        with pytest.raises(FormatError, match="left over"):
            Attestation.parse(packed + b"\0")


@pytest.mark.parametrize("attestation", [TDX_ONE, OTHERS[0]])
def test_a_changed_bit_is_refused_or_another_value(attestation: Attestation) -> None:
    for packed in (attestation.pack_v0(), attestation.pack_v1()):
        for at in range(8 * len(packed)):
            data = bytearray(packed)
            data[at // 8] ^= 1 << at % 8
            with suppress(StrongroomError):
                assert Attestation.parse(bytes(data)) != attestation


@pytest.mark.parametrize("data", [b"", b"\1", b"\xc0", b"\0", b"\0\1", b"\0\5", b"\x80", b"\xde\0\0", b"{}"])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^dstack attestation"):
        Attestation.parse(data)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("version",), 2),
        (("version",), True),
        (("more",), 1),
        (("platform", "kind"), "gcp-tdx"),
        (("platform", "kind"), 1),
        (("platform", "data"), []),
        (("platform", "data", "quote"), [256]),
        (("platform", "data", "quote"), [True]),
        (("platform", "data", "quote"), "text"),
        (("platform", "data", "event_log"), {}),
        (("platform", "data", "event_log"), [1]),
        (("platform", "data", "event_log"), [{"imr": 0}]),
        (("stack", "kind"), "other"),
        (("stack", "kind"), "dstack-pod"),
        (("stack", "data", "report_data"), bytes(63)),
        (("stack", "data", "config"), None),
        (("stack", "data", "runtime_events"), [{"event": "x", "payload": b"", "version": 3}]),
        (("stack", "data", "runtime_events"), [{"event": "x", "payload": b"", "version": True}]),
        (("stack", "data", "runtime_events"), [{"event": "x", "payload": b"", "version": []}]),
        (("stack", "data", "runtime_events"), [{"event": 1, "payload": b""}]),
        (("stack", "data", "runtime_events"), [{"event": "x"}]),
    ],
)
def test_a_wrong_member_is_refused(at: tuple[str, ...], value: Any) -> None:
    whole: Any = parse_messagepack(TDX_ONE.pack_v1(), "x", max_depth=8)
    inner = whole
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = value
    with pytest.raises(FormatError, match=r"^dstack attestation"):
        Attestation.parse(pack_messagepack(whole))


def test_report_data_is_64_bytes() -> None:
    with pytest.raises(FormatError, match="63 bytes"):
        replace(TDX_ONE, report_data=bytes(63))
