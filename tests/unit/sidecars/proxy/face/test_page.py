"""Mirrors page.py, sheet.py, facts.py and boot.py of the face; tests/integration/test_page.py has a real browser."""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecars.proxy.face.boot import Boot, Stage
from sidecars.proxy.face.facts import Facts, GPUs, Launched, host_of
from sidecars.proxy.face.page import HEADERS, page
from strongroom.errors import FormatError
from strongroom.evidence.bundle import TEEKind
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.hcl import ReportType
from strongroom.evidence.nvml import NVMLState
from strongroom.evidence.tdx import TDReport
from strongroom.measure.tree import words
from strongroom.receipts.log import Head, SignedHead
from strongroom.receipts.receipt import Model
from strongroom.wire.canonical import JSON, pack_json
from tests.fakes.exchange import ENGINE, MODEL, receipt_bundle
from tests.fakes.foreign import recorded
from tests.fakes.intel import BODY, BODY_1_5
from tests.fakes.keysock import FakeTD
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, silicon
from tests.fakes.tpm import hcl

NVML = NVMLState(environment=2, cc_feature=1, devtools=0, multi_gpu=0, driver="580.95.05", ready=0)
HOSTILE = "<script>alert(1)</script>\"'&"


def facts(directory: Path, **changes: object) -> Facts:
    made = Facts(
        title="Strongroom",
        state="open",
        at=datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC),
        host="llm.example:8443",
        model=MODEL,
        engine=ENGINE,
        max_model_len=4096,
        launched=Launched(tee="snp", measurement=MEASUREMENT, committed=HOST_DATA, simulated=False),
        gpus=GPUs(count=0, nvml=None),
        boot=Boot.from_json(recorded(directory / "boot.json").content),
        tls_spki=b"tls",
        receipt_key=b"receipts",
        not_before=datetime(2026, 11, 20, 12, 0, tzinfo=UTC),
        log=SignedHead(
            head=Head(log=bytes(16), size=1234, root=bytes(range(32)), time=1), signature=b"", key=b""
        ),
        signing={"ecdsa": "0xAb", "ed25519": "cd"},
        keyset_digest=f"sha256:{'ab' * 32}",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


class Seen(HTMLParser):
    """Every tag and attribute, and the text outside of the style."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def test_it_says_what_the_machine_is(tmp_path: Path) -> None:
    text = Seen(page(facts(tmp_path))).text
    for wanted in (
        words(MEASUREMENT),
        MEASUREMENT.hex(),
        MODEL.root.hex(),
        "AMD SEV-SNP",
        "tiny",
        "epoch 3, 4,096 tokens",
        "vllm 0.32.0",
        "1,234 receipts",
        bytes(range(32)).hex(),
        "none, and none on the bus",
        "412 ms",
        "21.3 s",
        "strongroom verify https://llm.example:8443 --policy policy.yaml",
    ):
        assert wanted in text
    assert "simulated" not in text


def test_every_tag_is_closed_and_none_reaches_outside(tmp_path: Path) -> None:
    seen = Seen(page(facts(tmp_path)))
    assert seen.open == []
    names = {tag for tag, _ in seen.tags}
    assert not names & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "audio",
        "video",
    }
    for _, attributes in seen.tags:
        assert not attributes.keys() & {"style", "src", "srcset", "action", "formaction", "xlink:href"}
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "#") in {"#check", "/.well-known/strongroom", "#"}
    assert not re.search(r"url\(|@import|//", page(facts(tmp_path)).replace("https://llm.example:8443", ""))


def test_every_label_points_at_what_is_there(tmp_path: Path) -> None:
    seen = Seen(page(facts(tmp_path)))
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in seen.tags if "aria-labelledby" in a} <= set(ids)
    assert [tag for tag, _ in seen.tags if tag in ("h1", "h2")] == ["h1", *["h2"] * 5]


def test_the_policy_lets_in_this_style_and_nothing_else(tmp_path: Path) -> None:
    (sheet,) = re.findall(r"<style>(.*?)</style>", page(facts(tmp_path)), re.DOTALL)
    digest = b64encode(sha256(sheet.encode()).digest()).decode()
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def test_whatever_is_in_a_name_stays_text(tmp_path: Path) -> None:
    boot = Boot(
        state=HOSTILE,
        words=HOSTILE,
        userdata_sha256=HOSTILE,
        stages=(Stage(HOSTILE, HOSTILE, 1),),
        raw={},
    )
    hostile = facts(
        tmp_path,
        title=HOSTILE,
        state=HOSTILE,
        host=HOSTILE,
        boot=boot,
        model=Model(name=HOSTILE, root=bytes(32), epoch=1),
        engine=replace(ENGINE, name=HOSTILE, version=HOSTILE),
        launched=replace(facts(tmp_path).launched, tee=HOSTILE),
        gpus=GPUs(count=1, nvml=replace(NVML, driver=HOSTILE)),
        signing={HOSTILE: HOSTILE},
    )
    document = page(hostile)
    assert "<script" not in document and HOSTILE not in document
    plain = page(replace(hostile, title="x", state="x", host="x", signing={"x": "x"}))
    assert [tag for tag, _ in Seen(document).tags] == [tag for tag, _ in Seen(plain).tags]
    assert Seen(document).open == []


@pytest.mark.parametrize(
    ("let_in", "words_"),
    [(2, "2, verified, work let in"), (None, "2, not yet let in"), (1, "2, not yet let in")],
)
def test_gpus_are_told_as_they_are(tmp_path: Path, let_in: int | None, words_: str) -> None:
    boot = facts(tmp_path).boot
    assert boot is not None
    text = Seen(page(facts(tmp_path, gpus=GPUs(count=2, nvml=NVML), boot=replace(boot, gpus=let_in)))).text
    assert words_ in text
    assert "confidential computing on, developer tools off, production, driver 580.95.05" in text


def test_simulated_silicon_is_said_first(tmp_path: Path) -> None:
    launched = replace(facts(tmp_path).launched, simulated=True)
    text = Seen(page(facts(tmp_path, launched=launched))).text
    assert text.index("Insecure: this is simulated silicon.") < text.index("The machine")


def test_without_a_record_the_rest_is_still_told(tmp_path: Path) -> None:
    text = Seen(page(facts(tmp_path, boot=None))).text
    assert "Not known at this moment" in text and "not known" in text and words(MEASUREMENT) in text


@pytest.mark.parametrize("state", ["draining", "closed"])
def test_a_door_that_is_not_open_says_so(tmp_path: Path, state: str) -> None:
    document = page(facts(tmp_path, state=state))
    assert f'<p class="state waiting" id="state">{state}</p>' in document


@pytest.mark.parametrize(
    ("name", "port", "url"),
    [
        ("llm.example", 8443, "llm.example:8443"),
        ("llm.example", 443, "llm.example"),
        ("llm.example", 0, "llm.example"),
        ("192.0.2.1", 8443, "192.0.2.1:8443"),
        ("2001:db8::1", 8443, "[2001:db8::1]:8443"),
    ],
)
def test_where_clients_find_it(name: str, port: int, url: str) -> None:
    assert host_of(name, port) == url


def test_the_launch_is_read_out_of_the_evidence() -> None:
    bundle = receipt_bundle(silicon(), Ed25519PrivateKey.from_private_bytes(bytes(32)))
    launched = Launched.of(bundle)
    assert (launched.tee, launched.measurement, launched.committed) == ("snp", MEASUREMENT, HOST_DATA)
    assert launched.simulated
    assert not Launched.of(replace(bundle, certificates=b"")).simulated
    for tee in ("tdx", "azure-snp", "azure-tdx"):
        kind: TEEKind = tee
        with pytest.raises(FormatError):
            Launched.of(replace(bundle, tee=kind))


@pytest.mark.parametrize("cut", [0, 1, 48, 1183])
def test_a_report_that_is_none_is_not_shown(cut: int) -> None:
    bundle = receipt_bundle(silicon(), Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(FormatError):
        Launched.of(replace(bundle, report=bundle.report[:cut]))


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ({"count": 0}, GPUs(count=0, nvml=None)),
        ({"count": 8, "nvml": NVML.to_json()}, GPUs(count=8, nvml=NVML)),
        ({"count": True}, None),
        ({"count": -1}, None),
        ({}, None),
        ([], None),
        ({"count": 1, "nvml": {}}, None),
    ],
)
def test_gpus_of_the_log(payload: JSON, found: GPUs | None) -> None:
    log = EventLog().extend(Event("gpu", pack_json(payload)))
    if found is not None:
        assert GPUs.of(log) == found
        return
    with pytest.raises(FormatError, match="event gpu"):
        GPUs.of(log)


def test_a_log_without_gpus_is_none_of_ours() -> None:
    with pytest.raises(FormatError, match="no event gpu"):
        GPUs.of(EventLog())


@pytest.mark.parametrize(
    "stages", [1, {}, [1], [{}], [{"name": "a", "outcome": "ok"}], [{"name": "a", "outcome": "ok", "ms": -1}]]
)
def test_a_record_that_is_none(stages: JSON) -> None:
    with pytest.raises(FormatError, match="boot record"):
        Boot.from_json({"stages": stages})


def test_a_record_with_too_many_stages() -> None:
    with pytest.raises(FormatError, match="64"):
        Boot.from_json({"stages": [{"name": "a", "outcome": "ok", "ms": 1}] * 65})


def test_what_a_record_does_not_say_is_not_known() -> None:
    boot = Boot.from_json({"state": 1, "gpus": True, "agent_ms": "x", "words": None})
    assert (boot.state, boot.gpus, boot.agent_ms, boot.words, boot.stages) == (
        "unknown",
        None,
        None,
        None,
        (),
    )


def test_every_fact_is_in_the_document(tmp_path: Path) -> None:
    """Nothing that the page shows is kept from programs."""
    made = facts(tmp_path)
    before = pack_json(made.to_json())
    changes: dict[str, object] = {
        "state": "closed",
        "at": datetime(2027, 1, 1, tzinfo=UTC),
        "model": Model(name="other", root=bytes(32), epoch=1),
        "engine": replace(ENGINE, version="1"),
        "max_model_len": 1,
        "launched": replace(made.launched, tee="tdx"),
        "gpus": GPUs(count=1, nvml=NVML),
        "boot": None,
        "tls_spki": b"other",
        "receipt_key": b"other",
        "not_before": datetime(2027, 1, 1, tzinfo=UTC),
        "log": replace(made.log, signature=b"x"),
        "signing": {},
        "keyset_digest": None,
    }
    assert changes.keys() == {f.name for f in fields(Facts)} - {"title", "host"}
    for name, value in changes.items():
        assert pack_json(replace(made, **{name: value}).to_json()) != before, name  # type: ignore[arg-type]


@pytest.mark.parametrize("tee", ["tdx", "azure-snp", "azure-tdx"])
def test_every_kind_of_machine_has_a_measurement(tee: TEEKind) -> None:
    made = {
        "tdx": FakeTD().report(bytes(64)).outblob[:-16],
        "azure-snp": hcl(b"{}", silicon().report(bytes(64))).pack(),
        "azure-tdx": hcl(b"{}", td_report(), ReportType.TDX).pack(),
    }
    bundle = receipt_bundle(silicon(), Ed25519PrivateKey.from_private_bytes(bytes(32)))
    launched = Launched.of(replace(bundle, tee=tee, report=made[tee]))
    wanted = {"tdx": BODY.mr_td, "azure-snp": MEASUREMENT, "azure-tdx": BODY_1_5.mr_td}
    assert (launched.tee, launched.measurement) == (tee, wanted[tee])


def td_report() -> bytes:
    return TDReport(version=0, cpu_svn=bytes(16), mac=bytes(32), valid=b"\xff" * 8, body=BODY_1_5).pack()
