"""Mirrors guest/initdata.py, guest/stages/configure.py and what guest/stages/measure.py does with it."""

import asyncio
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from demo.silicon.vtpm import vtpm
from guest.applications import Applications
from guest.attester import Attester, Launch
from guest.broker import KeyBroker, speaking
from guest.config import Config
from guest.gpus import GPUs
from guest.grants import Grants
from guest.initdata import bind, broker_address, carried
from guest.judge import judge
from guest.machine.tpm import opened
from guest.machine.tsm import Silicon
from guest.record import Record
from guest.stages.configure import configure
from guest.stages.measure import measure
from guest.system import System
from guest.userdata import MAX_BYTES, Userdata, read_init_data
from strongroom.errors import ConfigError, FormatError, MachineError, PolicyError, StrongroomError
from strongroom.evidence.hcl import ReportType
from strongroom.evidence.initdata import InitData, fitted, register
from tests import need
from tests.fakes.keysock import FakeTSM
from tests.fakes.silicon import silicon
from tests.unit.guest.test_attester_tpm import Absent, Hosted, on_azure
from tests.unit.guest.test_config import good
from tests.unit.guest.test_evidence import FakeTDX
from tests.unit.guest.test_userdata import iso

PEM: Final = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
AA: Final = f'[token_configs.kbs]\nurl = "https://kbs.example:8080/"\ncert = """\n{PEM}"""\n'


def userdata(**changes: Any) -> str:
    settings = {**good(), **changes}
    return "#cloud-config\n" + yaml.safe_dump(
        {"strongroom": {key: value for key, value in settings.items() if value is not None}}
    )


def document(algorithm: str = "sha384", **files: str | None) -> InitData:
    """Init-data with these files; a double underscore stands for a dot, a single one for a dash."""
    text = f'algorithm = "{algorithm}"\nversion = "0.1.0"\n[data]\n'
    for name, content in files.items():
        if content is not None:
            text += f"\"{name.replace('__', '.').replace('_', '-')}\" = '''\n{content}'''\n"
    return InitData.parse(text)


def guest(seed: Path, silicon: Silicon | None = None, attester: Attester | None = None) -> System:
    attester = attester or Attester(silicon or FakeTSM())
    package = seed.parent / "engine/lib/python3.11/site-packages/vllm-0.32.0.dist-info"
    package.mkdir(parents=True, exist_ok=True)
    (package / "METADATA").write_text("Name: vllm\nVersion: 0.32.0\n")
    return System(
        seed=seed,
        engine_venv=seed.parent / "engine",
        attester=attester,
        gpus=GPUs(judge(seed)),
        grants=Grants(),
        record=Record(seed.parent / "boot.json"),
        applications=Applications(attester),
        broker=KeyBroker(attester),
    )


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    folder = tmp_path / "seed"
    folder.mkdir()
    return folder


def configured(system: System) -> Config:
    return asyncio.run(configure(system))


def test_its_userdata_and_its_broker_are_taken(seed: Path) -> None:
    init_data = document(user_data=userdata(broker=None), aa__toml=AA)
    (seed / "initdata").write_bytes(init_data.pack())
    system = guest(seed)
    config = configured(system)
    assert config.broker is not None
    assert config.broker.url == "https://kbs.example:8080" and config.broker.ca_pem == PEM
    assert config.broker.spki_sha256 is None and config.broker.deadline_s == 60
    assert config.init_data == init_data == speaking(config.broker).init_data
    assert config.userdata_sha256 == hashlib.sha256(userdata(broker=None).encode()).digest()
    events = system.attester.log
    assert events.find("init-data") == hashlib.sha256(init_data.text.encode()).digest()
    assert events.find("userdata") == config.userdata_sha256
    assert [event.name for event in events.events] == ["init-data", "userdata"]
    assert system.record.content["init_data"] == {"algorithm": "sha384", "digest": init_data.digest.hex()}


def test_all_else_in_it_is_ignored(seed: Path) -> None:
    more = AA + '[token_configs.coco_as]\nurl = "http://x"\n[eventlog_config]\nenable_eventlog = true\n'
    init_data = document(
        user_data=userdata(broker=None),
        aa__toml=more,
        cdh__toml="[image]\nx = 1\n",
        policy__rego="package x\n",
    )
    (seed / "initdata").write_bytes(init_data.text.encode())
    config = configured(guest(seed))
    assert config.broker is not None and config.broker.url == "https://kbs.example:8080"
    assert config.coco is None and config.keys is None


def test_without_it_nothing_changes(seed: Path) -> None:
    (seed / "user-data").write_text(userdata())
    system = guest(seed)
    assert configured(system).init_data is None
    assert [event.name for event in system.attester.log.events] == ["userdata"]


def test_userdata_may_lie_beside_it_under_its_digest(seed: Path) -> None:
    text = userdata()
    (seed / "user-data").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    init_data = document(user_data__sha256=f"{digest}\n")
    (seed / "initdata").write_bytes(init_data.pack())
    assert configured(guest(seed)).init_data == init_data


@pytest.mark.guarantee("G2")
def test_userdata_that_it_does_not_name_is_refused_and_measured(seed: Path) -> None:
    (seed / "user-data").write_text(userdata(gpus=1))
    digest = hashlib.sha256(userdata().encode()).hexdigest()
    (seed / "initdata").write_bytes(document(user_data__sha256=digest).pack())
    system = guest(seed)
    with pytest.raises(PolicyError, match=f"but the init-data names {digest}"):
        configured(system)
    assert system.attester.log.find("userdata") == hashlib.sha256(userdata(gpus=1).encode()).digest()


@pytest.mark.parametrize("joliet", [True, False])
def test_an_image_may_have_it(tmp_path: Path, joliet: bool) -> None:
    init_data = document(user_data=userdata(broker=None), aa__toml=AA)
    path = tmp_path / "seed.iso"
    path.write_bytes(iso({"initdata": init_data.pack(), "meta-data": b"x"}, joliet=joliet))
    assert read_init_data(path) == init_data.pack()
    path.write_bytes(iso({"meta-data": b"x"}, joliet=joliet))
    assert read_init_data(path) is None


@pytest.mark.parametrize(
    ("delivered", "beside", "kind", "why"),
    [
        (document(aa__toml=AA), None, ConfigError, "has neither of user-data and user-data.sha256"),
        (document(user_data="x", user_data__sha256="x"), None, ConfigError, "has both of user-data and"),
        (document(user_data=userdata()), userdata(), ConfigError, "in the init-data and in the seed"),
        (document(user_data__sha256="0" * 64), None, ConfigError, "has no user-data"),
        (document(user_data__sha256="x"), userdata(), ConfigError, "want 64 lowercase hex digits"),
        (
            document(user_data=userdata(), aa__toml=AA),
            None,
            ConfigError,
            r"broker\.url: got one, and the init-data",
        ),
        (
            document(user_data=userdata(broker={"ca": PEM}), aa__toml=AA),
            None,
            ConfigError,
            r"broker\.ca: got one",
        ),
        (document(user_data=userdata(broker=None)), None, ConfigError, r"strongroom\.broker\.url: missing"),
        (document(user_data="#!/bin/sh\n"), None, ConfigError, "is never run here"),
        (b"H4sIAAAA", None, FormatError, "init-data: gzip is cut"),
        (b"\xff", None, FormatError, "init-data: byte 0 is not UTF-8"),
        (b"", None, FormatError, "init-data: want exactly algorithm"),
        (b"x" * (MAX_BYTES + 1), None, ConfigError, "more than 262144 bytes"),
    ],
    ids=range(13),
)
def test_what_is_not_clear_is_refused(
    seed: Path, delivered: InitData | bytes, beside: str | None, kind: type[StrongroomError], why: str
) -> None:
    (seed / "initdata").write_bytes(delivered.pack() if isinstance(delivered, InitData) else delivered)
    if beside is not None:
        (seed / "user-data").write_text(beside)
    with pytest.raises(kind, match=why):
        configured(guest(seed))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("https:", "http:", r"token_configs\.kbs\.url: got 'http://kbs.example:8080', want https://HOST"),
        ("kbs.example:8080/", "kbs.example:8080/path", r"kbs\.url"),
        ("cert =", "other =", r"kbs\.cert: missing, want one PEM certificate"),
        (PEM, PEM + PEM, r"kbs\.cert: .*want one PEM certificate"),
        (PEM, "x", r"kbs\.cert: got 'x\\n', want one PEM certificate"),
    ],
)
def test_a_broker_is_bounded_as_userdata_is(old: str, new: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        broker_address(document(aa__toml=AA.replace(old, new)))


def test_userdata_inside_is_its_exact_bytes() -> None:
    found = carried(document(user_data="#cloud-config\nä"))
    assert found == Userdata.of("#cloud-config\nä".encode())


LAUNCHED: Final = document("sha256", user_data=userdata(broker=None), aa__toml=AA)


class Chip:
    """Silicon whose launcher committed to these bytes."""

    def __init__(self, committed: bytes) -> None:
        self.committed = committed

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> Any:
        made = FakeTSM().report(report_data)
        return type(made)(silicon(host_data=self.committed).report(report_data), b"", "sev_guest")


@pytest.mark.guarantee("G2")
def test_a_guest_launched_with_it_goes_on_and_any_other_does_not(seed: Path) -> None:
    for algorithm in ("sha256", "sha384", "sha512"):
        init_data = document(algorithm, user_data=userdata(broker=None), aa__toml=AA)
        (seed / "initdata").write_bytes(init_data.pack())
        wanted = fitted(init_data.digest, 32)
        system = guest(seed, Chip(wanted))
        assert asyncio.run(measure(system, configured(system))).config.init_data == init_data
        userdatas = hashlib.sha256(userdata(broker=None).encode()).digest()
        for other in (bytes(32), userdatas, wanted[::-1], wanted[:31] + bytes((wanted[31] ^ 1,))):
            system = guest(seed, Chip(other))
            with pytest.raises(PolicyError, match=f"launched with host_data {other.hex()}"):
                asyncio.run(measure(system, configured(system)))


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_td_commits_to_forty_eight_bytes(algorithm: str) -> None:
    init_data = document(algorithm, user_data="x")
    wanted = fitted(init_data.digest, 48)

    def bound(committed: bytes) -> None:
        launch = Launch(tee="tdx", measurement=bytes(48), committed=committed)
        asyncio.run(bind(Attester(FakeTDX(mr_config_id=committed)), init_data, launch))

    bound(wanted)
    for other in (bytes(48), wanted[::-1], init_data.digest[:32].ljust(48, b"\1")):
        with pytest.raises(PolicyError, match="launched with mr_config_id"):
            bound(other)


@pytest.fixture
def tpm(socket_dir: Path) -> Iterator[Path]:
    need(shutil.which("swtpm"), "there is no swtpm")
    with vtpm(socket_dir) as path:
        yield path


@pytest.mark.guarantee("G2")
def test_behind_a_paravisor_the_register_takes_it_once(tpm: Path) -> None:
    device = on_azure(tpm, ReportType.SNP)
    assert device.paravisor_report is not None
    attester = Attester(Absent(), device, paravisor=Hosted(device.paravisor_report))
    launch = asyncio.run(attester.launch())
    asyncio.run(bind(attester, LAUNCHED, launch))
    with opened(tpm) as found:
        assert found.read(8) == register(LAUNCHED.digest)
    with pytest.raises(MachineError, match=r"pcr 8: is .*, want zeros"):
        asyncio.run(bind(attester, LAUNCHED, launch))
