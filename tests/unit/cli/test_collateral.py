"""Mirrors cli/collateral.py and cli/collateral_questions.py, against a local server that plays the services."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from demo.silicon.mint import CURRENT_TCB, Silicon
from strongroom.cli.main import main
from strongroom.evidence.nvidia_json import DeviceEvidence, to_nvidia
from strongroom.host.collateral.item import Vendor
from strongroom.host.collateral.services import PUBLIC
from strongroom.host.collateral.store import Store
from tests.fakes import silicon as simulated
from tests.fakes.https import ok
from tests.fakes.intel import FMSPC, Platform
from tests.fakes.nvidia import DRIVER, VBIOS, nvidia
from tests.fakes.vendors import BROKEN, Vendors, playing, revocation_list

Run = Callable[..., int]
SILICON_NONCE = bytes(64)


@pytest.fixture
def silicon() -> Silicon:
    return simulated.silicon()


@pytest.fixture
def vendors(silicon: Silicon, now: datetime) -> Vendors:
    vendors, pki = Vendors(), silicon.pki
    crl = revocation_list(pki.ark.subject, pki.ark_key, issued=now - timedelta(hours=1))
    vendors.amd(pki, CURRENT_TCB, crl)
    vendors.intel(Platform().collateral(), fmspc=FMSPC.hex())
    vendors.manifest(f"NV_GPU_DRIVER_GH100_{DRIVER}", nvidia().driver_rim())
    vendors.manifest(f"NV_GPU_VBIOS_1010_0200_882_{VBIOS.replace('.', '')}", nvidia().vbios_rim())
    vendors.responder(nvidia().device().chain, nvidia().rim[::-1])
    return vendors


@pytest.fixture
def run(tmp_path: Path, silicon: Silicon, vendors: Vendors, now: datetime) -> Iterator[Run]:
    """The verb with one action, on a cache of its own; what it reaches is played."""
    roots = [silicon.pki.ark_sha256, *Platform().roots.insecure, *nvidia().roots().insecure]
    shared = [f"--cache={tmp_path / 'cache'}", *(f"--insecure-simulated-root={root.hex()}" for root in roots)]
    with playing(tmp_path, vendors) as played:
        reach = [*played.options(tmp_path / "ca.pem"), "--deadline=0"]

        def run(action: str, *words: object, at: datetime = now) -> int:
            options = [*shared, f"--now={at.isoformat()}", *(reach if action == "fill" else [])]
            return main(["collateral", action, *map(str, words), *options])

        yield run


@pytest.fixture
def report(tmp_path: Path, silicon: Silicon) -> Path:
    path = tmp_path / "report.bin"
    path.write_bytes(silicon.report(SILICON_NONCE))
    return path


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_fill_list_show(
    run: Run, report: Path, tmp_path: Path, silicon: Silicon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fill", "--snp-report", report) == 0
    shown = lines(capsys)
    assert [line.split()[0] for line in shown] == ["fetched", "fetched"]
    assert all(line.endswith("INSECURE-SIMULATED") for line in shown)
    assert silicon.pki.chip_id.hex()[:20] not in "".join(shown)  # it names a machine
    assert run("fill") == 0
    assert [line.split()[0] for line in lines(capsys)] == ["fresh", "fresh"]
    assert run("list") == 0
    listed = lines(capsys)
    names = Store(tmp_path / "cache").names()
    assert [line.split()[0] for line in listed] == [name[:12] for name in names]
    name = next(line.split()[0] for line in listed if "issuers" in line)
    assert run("show", name) == 0
    text = "\n".join(lines(capsys))
    assert "AMD Genoa issuers of a vcek" in text and "until 2026-12-20" in text and "part crl" in text


def test_every_kind_of_evidence(
    run: Run, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quote, gpus = tmp_path / "quote.bin", tmp_path / "gpus.json"
    quote.write_bytes(Platform().quote().pack())
    device, nonce = nvidia().device(), bytes(range(32))
    evidence = DeviceEvidence("hopper", device.pem, device.report(nonce).pack(), nonce)
    gpus.write_text(json.dumps(to_nvidia((evidence,))))
    words = ["--snp-report", report, "--tdx-quote", quote, "--gpus", gpus, "--json"]
    assert run("fill", *words) == 0
    outcomes = json.loads(capsys.readouterr().out)
    assert {one["kind"] for one in outcomes} == {
        "amd-chip",
        "amd-issuers",
        "intel-platform",
        "nvidia-rim",
        "nvidia-status",
    }
    assert len(outcomes) == 11 and all(one["state"] == "fetched" and one["simulated"] for one in outcomes)
    assert run("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert sorted(one["name"] for one in outcomes) == [one["name"] for one in listed]
    assert all(one["error"] is None for one in listed)


def test_what_is_named_itself(run: Run, vendors: Vendors, capsys: pytest.CaptureFixture[str]) -> None:
    vendors.answers |= {
        path.replace("/vcek/", "/vlek/"): answer
        for path, answer in vendors.answers.items()
        if path.startswith("/vcek/v1/Genoa/c")
    }
    words = ["--snp-issuers=Genoa", f"--tdx-platform={FMSPC.hex().upper()}:platform"]
    run("fill", *words, f"--rim=NV_GPU_DRIVER_GH100_{DRIVER}")
    states = [line.split()[0] for line in lines(capsys)]
    assert states == ["fetched", "failed", "fetched", *["fetched"] * 4]  # one ASK is for VCEKs alone


@pytest.mark.guarantee("G1")
def test_an_outage_keeps_what_holds_and_nothing_longer(
    run: Run, report: Path, vendors: Vendors, now: datetime, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fill", "--snp-report", report)
    vendors.answers = dict.fromkeys(vendors.answers, BROKEN)
    capsys.readouterr()
    assert run("fill", at=now + timedelta(days=2)) == 0
    said = capsys.readouterr()
    assert "kept: AMD Genoa issuers of a vcek" in said.err and "answer is 503, want 200" in said.err
    assert [line.split()[0] for line in said.out.splitlines()].count("kept") == 1
    assert run("fill", at=now + timedelta(days=31)) == 9
    assert "failed" in capsys.readouterr().out
    assert run("list", at=now + timedelta(days=31)) == 0
    assert "USELESS AMD Genoa issuers of a vcek, and what is revoked: crl: expired" in capsys.readouterr().out


@pytest.mark.guarantee("G1")
def test_a_forgery_is_said_and_has_its_code(
    run: Run, report: Path, vendors: Vendors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vendors.answers = {
        path: ok(b"\x30\0") if path.endswith("/crl") else answer for path, answer in vendors.answers.items()
    }
    assert run("fill", "--snp-report", report) == 5
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "failed: AMD Genoa issuers" in said.err
    assert len(Store(tmp_path / "cache").names()) == 1


def test_what_is_exported_is_imported_where_there_is_no_network(
    run: Run,
    report: Path,
    tmp_path: Path,
    vendors: Vendors,
    now: datetime,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("fill", "--snp-report", report)
    capsys.readouterr()
    archive = tmp_path / "collateral.tar"
    assert run("export", archive) == 0
    assert lines(capsys) == [f"{archive}: 2 entries"]
    (tmp_path / "cache").rename(tmp_path / "first")
    vendors.answers.clear()
    assert run("import", archive) == 0
    assert [line.split()[0] for line in lines(capsys)] == ["taken", "taken"]
    assert Store(tmp_path / "cache").names() == Store(tmp_path / "first").names()
    assert run("import", archive, "--json", at=now + timedelta(days=31)) == 5
    said = capsys.readouterr()
    assert "refused: AMD Genoa issuers" in said.err and "expired" in said.err
    assert len(json.loads(said.out)) == 2
    assert run("export", archive, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"entries": 2}


def test_a_part_is_written_as_it_is(
    run: Run, report: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    run("fill", "--snp-report", report)
    store = Store(tmp_path / "cache")
    entry = next(entry for entry in store.entries() if entry.item.kind == "amd-issuers")
    capfdbinary.readouterr()
    assert run("show", entry.name, "--part", "crl") == 0
    assert capfdbinary.readouterr().out == entry.parts["crl"]
    assert run("show", entry.name, "--part", "else") == 3
    assert b"--part: got 'else', want one of" in capfdbinary.readouterr().err


def test_show_in_json(run: Run, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("fill", "--snp-report", report)
    name = Store(tmp_path / "cache").names()[0]
    capsys.readouterr()
    assert run("show", name, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["name"] == name and shown["error"] is None and shown["simulated"] is True
    assert all(len(part["sha256"]) == 64 for part in shown["parts"].values())


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["fill", "--snp-report", "/nonexistent"], 8, "/nonexistent: no such file"),
        (["fill", "--snp-report", "/dev/null"], 4, "/dev/null: snp report"),
        (["fill", "--tdx-quote", "/dev/null"], 4, "/dev/null: tdx quote"),
        (["fill", "--gpus", "/dev/null"], 4, "/dev/null: gpu evidence"),
        (["fill", "--switches", "/dev/zero"], 4, "/dev/zero: longer than"),
        (["fill", "--snp-issuers", "Rome"], 4, "want one of Milan, Genoa, Turin"),
        (["fill", "--tdx-platform", "90c06f000000"], 3, "--tdx-platform: got '90c06f000000'"),
        (["fill", "--tdx-platform", "90c06f:platform"], 4, "want 12 lowercase hex digits"),
        (["fill", "--rim", "../x"], 4, "nvidia-rim.id: got '../x'"),
        (["fill", "--service", "amd=https://127.0.0.1"], 3, "--service: got 'amd'"),
        (["fill", "--service", "amd-kds=http://127.0.0.1"], 3, "want https"),
        (["list", "--now", "yesterday"], 3, "--now: got 'yesterday'"),
        (["list", "--now", "2026-11-20T00:00:00"], 3, "want a time with its zone"),
        (["list", "--insecure-simulated-root", "00"], 3, "want 64 lowercase hex digits"),
        (["list"], 8, "no such file or directory"),
        (["show", "abcdef"], 8, "no such file or directory"),
        (["export", "/nonexistent/x"], 8, "no such file or directory"),
        (["import", "/nonexistent"], 8, "/nonexistent: no such file"),
        (["import", "/dev/null"], 4, "not a tar file we can read"),
    ],
)
def test_bad_input_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, why: str
) -> None:
    assert main(["collateral", *words, f"--cache={tmp_path / 'cache'}"]) == code
    err = capsys.readouterr().err
    assert why in err and err.count("\n") == 1


def test_digits_that_name_no_entry_or_are_none(
    run: Run, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fill", "--snp-report", report)
    capsys.readouterr()
    for digits in ("000000", "", "zz", "../x"):
        assert run("show", digits) == 3
        assert "entries have names that start with" in capsys.readouterr().err


def test_an_authority_is_for_mirrors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ca.pem").write_text("x")
    assert main(["collateral", "fill", f"--cache={tmp_path}", f"--ca={tmp_path / 'ca.pem'}"]) == 3
    assert "--ca: is for mirrors" in capsys.readouterr().err


def test_the_cache_is_where_caches_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["collateral", "fill"]) == 0  # nothing is kept, so nothing is asked
    assert (tmp_path / "strongroom/collateral").is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["collateral", "fill"]) == 0
    assert (tmp_path / "home/.cache/strongroom/collateral").is_dir()
    assert capsys.readouterr().out == ""


def test_a_damaged_entry_is_listed_and_said(
    run: Run, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fill", "--snp-report", report)
    store = Store(tmp_path / "cache")
    (store.directory / f"{store.names()[0]}.json").write_text("{}")
    capsys.readouterr()
    assert run("list") == 0
    assert "USELESS" in capsys.readouterr().out
    assert run("fill") == 4
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "collateral entry: has none" in said.err
    assert said.out.split()[0] == "fresh"  # the other one is looked after all the same


def test_public_services_are_all_there_and_nowhere_else() -> None:
    assert set(PUBLIC) == set(Vendor)
    assert all(service.pin.system for service in PUBLIC.values())
