"""Mirrors host/genuine.py: a desk that verifies for real, and guests of every kind of machine before it."""

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from strongroom.appraise.policy import Policy
from strongroom.appraise.verdict import appraise
from strongroom.broker.audit import Outcome
from strongroom.broker.desk import Desk, Question, Ruling
from strongroom.broker.dialect import DIALECTS
from strongroom.broker.proof import Finding, Proof
from strongroom.broker.suspended import Suspended
from strongroom.errors import PolicyError, ProtocolError, VerifyError
from strongroom.evidence.initdata import InitData, fitted
from strongroom.evidence.kbs import KBSTee
from strongroom.host.collateral import supply
from strongroom.host.collateral.nvidia import NVIDIAManifest
from strongroom.host.collateral.store import Store
from strongroom.host.genuine import Verifier, finding
from strongroom.verify.roots import PRODUCTION
from strongroom.wire.canonical import JSON, unb64u
from tests.fakes.broker import NOW, URI, VOLUME, Guest, desk
from tests.fakes.kbs import MACHINES, Machine
from tests.fakes.makers import World
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, silicon
from tests.unit.verify.test_kbs import AK

TDX = World(NOW, "tdx", gpus=1)
SNP = World(NOW, "snp", gpus=2)
INIT_DATA = InitData.parse('algorithm = "sha384"\nversion = "0.1.0"\n[data]\n"aa.toml" = "a = 1"\n')


@dataclass
class PolicyKeeper:
    """One resource under one policy, judged for real."""

    policy: Policy
    claims: Verifier
    found: list[Finding] = field(default_factory=list)

    def verify(self, proof: Proof, now: datetime) -> Finding:
        self.found.append(finding(self.claims(proof, self.policy.roots, now)))
        return self.found[-1]

    def judge(self, question: Question, proof: Proof, now: datetime) -> Ruling | None:
        verdict = appraise(self.claims(proof, self.policy.roots, now), self.policy, now=now)
        return Ruling("policy", verdict.reasons, VOLUME.pack() if verdict.passed else None)


def machine(tee: KBSTee, **changes: Any) -> Machine:
    world = TDX if "tdx" in tee else SNP
    made = Machine(tee, devices=world.devices, events=world.events, platform=world.platform)
    return replace(made, **changes)


def policy(tee: KBSTee, **changes: JSON) -> Policy:
    """One that accepts this machine, its GPUs included."""
    world = TDX if "tdx" in tee else SNP
    value: dict[str, Any] = dict(world.policy())
    value.pop("model")  # mounted only with the key that is asked for
    state: JSON = {"name": "followed", "pcrs": {"pcr15": "events"}}
    roots = {*world.roots.insecure, *SNP.roots.insecure}
    value["insecure_simulated_roots"] = sorted(root.hex() for root in roots)
    if tee not in ("snp", "tdx"):
        value["tpm"] = {"states": [state]} | ({"keys": [AK.hex()]} if tee == "tpm" else {})
    if tee == "tpm":
        del value["measurements"], value["host_data"]
    elif tee not in ("snp", "tdx"):
        value["azure"] = {}
        if "tdx" in value:  # the paravisor's registers are not ours to follow
            value["tdx"]["images"][0]["rtmr3"] = "any"
    return Policy.from_raw(value | changes)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("collateral")
    store = Store.create(directory)
    for world in (TDX, SNP):
        world.fill(store)
    return directory


def at(tee: KBSTee, kept: Path | None, **changes: JSON) -> Desk:
    return desk(PolicyKeeper(policy(tee, **changes), Verifier(kept)))


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("tee", MACHINES)
def test_every_kind_of_machine_gets_its_key_with_its_gpus(tee: KBSTee, kept: Path) -> None:
    guest = Guest.on(machine(tee))
    assert guest.obtain(at(tee, kept)) == VOLUME.pack()
    assert [answer.audit and answer.audit.outcome for answer in guest.answers] == [
        None,
        Outcome.ATTESTED,
        Outcome.RELEASED,
    ]


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("tee", MACHINES)
def test_without_its_gpus_it_gets_none(tee: KBSTee, kept: Path) -> None:
    with pytest.raises(PolicyError, match="gpus is 0, want"):
        Guest.on(machine(tee, devices=[])).obtain(at(tee, kept))


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("tee", MACHINES)
def test_gpus_that_answered_another_session_are_not_genuine(tee: KBSTee, kept: Path) -> None:
    with pytest.raises(VerifyError, match="device 0: gpu report: made for another nonce"):
        Guest.on(machine(tee, nonce=bytes(range(32)))).obtain(at(tee, kept))


@pytest.mark.parametrize("tee", ["tdx", "az-tdx-vtpm"])
def test_without_intels_word_nothing_is_genuine(tee: KBSTee, tmp_path: Path) -> None:
    for none in (None, tmp_path / "not there"):
        with pytest.raises(VerifyError, match="neither evidence nor verifier has intel-tcb-info"):
            Guest.on(machine(tee)).obtain(at(tee, none))


def test_what_the_directory_has_is_asked_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = Store.create(tmp_path), list[int]()
    TDX.fill(store, without=NVIDIAManifest)
    real = supply.at_hand

    def counted(items: Any, *rest: Any, **more: Any) -> supply.Supplied:
        asked.append(len(list(items)))
        return real(items, *rest, **more)

    monkeypatch.setattr(supply, "at_hand", counted)
    keeper = PolicyKeeper(policy("tdx"), Verifier(tmp_path))
    for _ in range(2):
        with pytest.raises(PolicyError, match="gpu measurements is not compared"):
            Guest.on(machine("tdx")).obtain(desk(keeper))
    assert len(asked) == 1
    TDX.fill(store)
    assert Guest.on(machine("tdx")).obtain(desk(keeper)) == VOLUME.pack()
    assert len(asked) == 2
    late = NOW + timedelta(days=40)  # what Intel said has run out meanwhile
    evidence = machine("tdx")
    with pytest.raises(VerifyError):
        keeper.claims(_proof(evidence), keeper.policy.roots, late)
    assert len(asked) == 3


def _proof(guest: Machine) -> Proof:
    seen: list[Proof] = []

    class Seeing(PolicyKeeper):
        def verify(self, proof: Proof, now: datetime) -> Finding:
            seen.append(proof)
            return Finding(simulated=False, debug=False)

    Guest.on(guest).admitted(desk(Seeing(policy("tdx"), Verifier())))
    return seen[0]


def test_no_policy_s_machine_is_believed_without_its_root(kept: Path) -> None:
    proof = _proof(machine("tdx"))
    with pytest.raises(VerifyError):
        Verifier(kept)(proof, PRODUCTION, NOW)


@pytest.mark.guarantee("G2")
@pytest.mark.parametrize("tee", MACHINES)
def test_init_data_has_to_be_what_was_launched(tee: KBSTee, kept: Path) -> None:
    committed: Any = {
        "snp": {"chip": silicon(host_data=fitted(INIT_DATA.digest, 32))},
        "tdx": {"body": {"mr_config_id": fitted(INIT_DATA.digest, 48)}},
    }.get(tee, {"init_data": INIT_DATA.digest})
    changes: dict[str, JSON] = {} if tee == "tpm" or "tdx" in tee else {"host_data": "any"}
    guest = Guest.on(machine(tee, **committed), init_data=INIT_DATA)
    token = guest.admitted(at(tee, kept, **changes)).token
    claims = json.loads(_payload(token))["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert claims["init_data"] == INIT_DATA.digest.hex()
    assert claims["init_data_claims"] == {"aa.toml": {"a": 1}}
    with pytest.raises(VerifyError, match="the digest of the init-data"):
        Guest.on(machine(tee), init_data=INIT_DATA).admitted(at(tee, kept, **changes))


def _payload(token: str) -> bytes:
    return unb64u(token.split(".")[1], "token")


@pytest.mark.parametrize("tee", MACHINES)
def test_a_token_says_what_was_found(tee: KBSTee, kept: Path) -> None:
    token = json.loads(_payload(Guest.on(machine(tee)).admitted(at(tee, kept)).token))
    devices = 1 if "tdx" in tee else 2
    assert [*token["submods"]] == ["cpu0", *(f"gpu{n}" for n in range(devices))]
    said = token["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert said["runtime_data_claims"].keys() == {"nonce", "tee-pubkey"}
    cpu = said[tee]
    if "tdx" in tee:
        assert cpu["mr_td"] == cpu["measurement"] and cpu["tcb_status"] == "UpToDate"
    elif tee != "tpm":
        assert cpu["measurement"] == MEASUREMENT.hex() and cpu["init_data"] == HOST_DATA.hex()
        assert "reported_tcb_microcode" in cpu
    assert ("tpm" in cpu) is (tee not in ("snp", "tdx"))
    gpu = token["submods"]["gpu0"]["ear.veraison.annotated-evidence"]["nvidia"]
    assert gpu["arch"] == "hopper" and gpu["measured"] is True
    assert token["submods"]["gpu0"]["ear.status"] == "contraindicated"  # simulated


@pytest.mark.parametrize("version", [*DIALECTS])
@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_a_broker_answers_the_versions_it_was_told(tee: KBSTee, version: str, kept: Path) -> None:
    keeper = PolicyKeeper(policy(tee), Verifier(kept))
    guest = Guest.on(
        machine(tee) if version != "0.2.0" else machine(tee, devices=[]), dialect=DIALECTS[version]
    )
    if version != "0.4.0":
        with pytest.raises(ProtocolError, match=f"broker speaks protocol 0.4.0, we speak {version}"):
            guest.obtain(desk(keeper))
    if version == "0.2.0":  # evidence of then, which is not read here any more
        if tee == "snp":
            with pytest.raises(VerifyError, match="snp evidence"):
                guest.obtain(desk(keeper, versions=DIALECTS))
        else:
            with pytest.raises(PolicyError, match="want test image; engine version is unknown"):
                guest.obtain(desk(keeper, versions=DIALECTS))
        return
    assert guest.obtain(desk(keeper, versions=DIALECTS)) == VOLUME.pack()


@pytest.mark.parametrize("tee", MACHINES)
@pytest.mark.parametrize("version", ["0.4.0", "0.3.0"])
def test_a_session_goes_on_after_a_restart(tee: KBSTee, version: str, kept: Path) -> None:
    keeper = PolicyKeeper(policy(tee), Verifier(kept))
    before, after = (desk(keeper, versions=DIALECTS) for _ in range(2))
    guest = Guest.on(machine(tee), dialect=DIALECTS[version])
    admission = guest.admitted(before)
    (kept_session,) = before.suspend(NOW)
    assert (Suspended.parse(kept_session).tee, Suspended.parse(kept_session).dialect.version) == (
        tee,
        version,
    )
    assert after.resume([kept_session], NOW) == 1
    send = admission.ask(URI)
    assert admission.open(send, guest._carried(after, send)) == VOLUME.pack()
