"""Mirrors verify/kbs.py: evidence of every kind of machine, bound to one session of a key broker and to no other."""

from dataclasses import replace
from hashlib import sha256
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.appraise.policy import Policy
from strongroom.appraise.verdict import appraise
from strongroom.broker.exchange import Collect
from strongroom.broker.messages import Challenge
from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.initdata import InitData, fitted, register
from strongroom.evidence.kbs import CompositeEvidence, Digests, KBSEvidence, KBSTee
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tcglog import LogKind
from strongroom.evidence.tpm import Hash, TPMQuote
from strongroom.keys.jwk import pack_jwk
from strongroom.verify.claims import Claims
from strongroom.verify.kbs import verify_kbs
from strongroom.verify.lacking import LackingError
from strongroom.verify.tcglog import replay
from strongroom.wire.canonical import JSON
from tests.fakes.amd import genuine, needs_vectors
from tests.fakes.composite import DRIVER_RIM, GPU, LOG, NOW, VBIOS_RIM, bundle, collateral, roots
from tests.fakes.kbs import MACHINES, Machine
from tests.fakes.nvidia import DRIVER, VBIOS
from tests.fakes.silicon import silicon
from tests.fakes.tpm import log, rsa_tpm

KEY = pack_jwk(ec.derive_private_key(21, ec.SECP256R1()).public_key())
ASKED = Collect(Challenge("n" * 44, takes_events=True), KEY)
INIT_DATA = InitData.parse('algorithm = "sha384"\nversion = "0.1.0"\n[data]\n"aa.toml" = ""\n').digest
SPKI = rsa_tpm().key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
AK = sha256(SPKI).digest()
OTHER = b"\x77" * 48
MADE_FOR_ANOTHER = r"want the digest of this exchange|want the nonce of this challenge"


def digests(evidence: CompositeEvidence, asked: Collect = ASKED, **changes: Any) -> Digests:
    made = Digests(
        primary=asked.digest(evidence.gpus, evidence.events),
        device=asked.device_nonce + bytes(16),
        hash=asked.hash,
    )
    return replace(made, **changes)


def verified(evidence: CompositeEvidence, wanted: Digests | None = None, **changes: Any) -> Claims:
    arguments: dict[str, Any] = {
        "roots": roots().with_tpm_keys([AK]),
        "now": NOW,
        "collateral": collateral(),
        "issuers": CertificateTable.parse(silicon().certificates()),
    }
    return verify_kbs(evidence, wanted or digests(evidence), **arguments | changes)


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("tee", MACHINES)
def test_every_machine_speaks_for_its_session_alone(tee: KBSTee) -> None:
    evidence = Machine(tee, events=LOG)(ASKED)
    claims = verified(evidence)
    assert claims.events == LOG
    assert claims.tee == {"az-snp-vtpm": "snp", "az-tdx-vtpm": "tdx"}.get(tee, tee)
    assert (claims.azure is not None) is tee.startswith("az-")
    assert (claims.tpm is not None) is (tee not in ("snp", "tdx"))
    with pytest.raises(VerifyError, match=MADE_FOR_ANOTHER):
        verified(evidence, digests(evidence, primary=OTHER))


@pytest.mark.parametrize("tee", MACHINES)
def test_no_machine_is_genuine_under_nobodys_roots(tee: KBSTee) -> None:
    evidence = Machine(tee)(ASKED)
    believed = replace(roots(), insecure=frozenset())
    with pytest.raises(VerifyError):
        verified(evidence, roots=believed)


@pytest.mark.parametrize("tee", ["tdx", "az-tdx-vtpm"])
def test_intels_collateral_is_the_verifiers_own(tee: KBSTee) -> None:
    with pytest.raises(LackingError, match="neither evidence nor verifier has intel-tcb-info"):
        verified(Machine(tee)(ASKED), collateral=Collateral())


def test_the_issuers_of_an_azure_chip_are_the_verifiers_own() -> None:
    evidence = Machine("az-snp-vtpm")(ASKED)
    bare = CertificateTable(vcek=CertificateTable.parse(evidence.primary.certificates).vcek).pack()
    evidence = replace(evidence, primary=replace(evidence.primary, certificates=bare))
    assert verified(evidence).azure is not None
    with pytest.raises(LackingError):
        verified(evidence, issuers=None)


@pytest.mark.guarantee("G7")
def test_a_bundle_s_report_never_stands_in_for_a_broker_s() -> None:
    made = bundle().report
    for digest in (made[0x50:0x80], made[0x60:0x90]):
        evidence = CompositeEvidence(primary=KBSEvidence(tee="snp", report=made))
        with pytest.raises(VerifyError, match="report_data differs"):
            verified(evidence, Digests(primary=digest, device=digest))


# Devices


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("tee", MACHINES)
def test_devices_are_verified_under_the_device_digest(tee: KBSTee) -> None:
    claims = verified(Machine(tee, devices=[GPU], events=LOG)(ASKED))
    assert claims.gpus == 1 and claims.devices is not None and claims.devices.measured
    assert claims.gpu_state is not None
    replayed = Machine(tee, devices=[GPU], nonce=ASKED.digest()[:32])(ASKED)
    with pytest.raises(VerifyError, match="device 0: gpu report: made for another nonce"):
        verified(replayed)


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("tee", MACHINES)
def test_a_machine_speaks_for_its_own_devices(tee: KBSTee) -> None:
    """Devices that answered the right nonce, beside a CPU that did not hear of them; and the other way round."""
    gpus = Machine(tee, devices=[GPU]).gpus(ASKED)
    alone, both = Machine(tee)(ASKED), Machine(tee, devices=[GPU])(ASKED)
    for mixed in (replace(alone, gpus=gpus), replace(both, gpus=())):
        with pytest.raises(VerifyError, match=MADE_FOR_ANOTHER):
            verified(mixed)


def policy(**changes: JSON) -> Policy:
    machine = silicon()
    value: dict[str, Any] = {
        "version": 1,
        "measurements": [{"name": "test", "value": machine.measurement.hex()}],
        "host_data": "any",
        "insecure_simulated_roots": sorted(root.hex() for root in roots().insecure),
    }
    return Policy.from_raw(value | changes)


GPUS: dict[str, JSON] = {
    "gpus": 1,
    "gpu": {
        "architectures": ["hopper"],
        "drivers": [DRIVER],
        "vbios": [VBIOS],
        "ocsp_hours": "any",
    },
}


@pytest.mark.guarantee("G1")
def test_a_policy_with_gpus_wants_their_evidence_and_all_of_it() -> None:
    wanted = policy(**GPUS)
    assert appraise(verified(Machine(devices=[GPU], events=LOG)(ASKED)), wanted, now=NOW).passed
    refused = appraise(verified(Machine(events=LOG)(ASKED)), wanted, now=NOW)
    assert refused.reasons == ("gpus is 0, want 1", "gpu evidence is absent, want that of every gpu")
    unmeasured = Collateral.of({n: d for n, d in collateral() if n not in (DRIVER_RIM, VBIOS_RIM)})
    claims = verified(Machine(devices=[GPU], events=LOG)(ASKED), collateral=unmeasured)
    assert any("gpu measurements is not compared" in why for why in appraise(claims, wanted, now=NOW).reasons)
    # Without the log nobody says in which mode the driver is: the defaults refuse that.
    silent = Collect(Challenge("n" * 44), KEY)
    evidence = Machine(devices=[GPU], events=LOG)(silent)
    told = appraise(verified(evidence, digests(evidence, silent)), wanted, now=NOW).reasons
    assert any("gpu devtools is unknown" in why for why in told)


# Event log


@pytest.mark.parametrize("tee", ["az-snp-vtpm", "az-tdx-vtpm", "tpm"])
def test_a_log_that_its_register_did_not_follow_is_refused(tee: KBSTee) -> None:
    with pytest.raises(VerifyError, match="tpm quote: pcr 15 is"):
        verified(Machine(tee, events=LOG, pcrs={15: EventLog(LOG.events[:1]).pcr})(ASKED))


def test_a_log_is_bound_by_the_report() -> None:
    evidence = Machine(events=LOG)(ASKED)
    with pytest.raises(VerifyError, match="report_data differs"):
        verified(replace(evidence, events=EventLog(LOG.events[:1])))


def test_the_register_of_a_trust_domain_is_judged_by_its_log() -> None:
    claims = verified(Machine("tdx", events=LOG)(ASKED))
    assert claims.tdx is not None and claims.tdx.body.rtmr3 == LOG.head


def test_a_firmware_log_has_to_explain_every_register_it_extends() -> None:
    firmware = log([(1, 1, b"a"), (2, 1, b"b"), (1, 1, b"c")], kind=LogKind.CC, banks=(Hash.SHA384,))
    values = replay(firmware, Hash.SHA384)
    body = {f"rtmr{index - 1}": value for index, value in values.items()}
    packed = b"".join(_records(firmware))

    def with_log(machine: Machine) -> CompositeEvidence:
        evidence = machine(ASKED)
        return replace(evidence, primary=replace(evidence.primary, log=packed))

    assert verified(with_log(Machine("tdx", body=body))).tdx is not None
    with pytest.raises(VerifyError, match="event log: replay differs from the quote in"):
        verified(with_log(Machine("tdx", body=body | {"rtmr1": bytes(48)})))
    intact = with_log(Machine("tdx", body=body))
    broken = replace(intact, primary=replace(intact.primary, log=packed[:-1]))
    with pytest.raises(FormatError):
        verified(broken, digests(intact))


def _records(firmware: Any) -> Any:
    first = firmware.records[0]
    yield _u32(1) + _u32(first.type) + bytes(20) + _u32(len(first.event)) + first.event
    for record in firmware.records[1:]:
        digests = b"".join(number.to_bytes(2, "little") + digest for number, digest in record.digests)
        head = _u32(record.register) + _u32(record.type) + _u32(len(record.digests))
        yield head + digests + _u32(len(record.event)) + record.event


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


# Init-data


def committed(tee: KBSTee) -> Machine:
    if tee == "snp":
        return Machine(chip=silicon(host_data=fitted(INIT_DATA, 32)))
    if tee == "tdx":
        return Machine("tdx", body={"mr_config_id": fitted(INIT_DATA, 48)})
    return Machine(tee, init_data=INIT_DATA)


@pytest.mark.guarantee("G2")
@pytest.mark.parametrize("tee", MACHINES)
def test_init_data_is_what_the_hardware_committed_to(tee: KBSTee) -> None:
    evidence = committed(tee)(ASKED)
    verified(evidence, digests(evidence, init_data=INIT_DATA))
    with pytest.raises(VerifyError, match="the digest of the init-data"):
        verified(evidence, digests(evidence, init_data=OTHER))
    without = Machine(tee)(ASKED)
    with pytest.raises(VerifyError, match="the digest of the init-data"):
        verified(without, digests(without, init_data=INIT_DATA))


def test_the_register_of_init_data_takes_one_digest() -> None:
    assert register(INIT_DATA) == sha256(bytes(32) + INIT_DATA[:32]).digest()
    assert register(b"\1" * 20) == sha256(bytes(32) + b"\1" * 20 + bytes(12)).digest()


# Azure


@pytest.mark.parametrize("tee", ["az-snp-vtpm", "az-tdx-vtpm"])
def test_the_paravisors_user_data_carry_the_digest_too(tee: KBSTee) -> None:
    with pytest.raises(VerifyError, match="hcl report: user-data differs"):
        verified(Machine(tee, user_data=OTHER)(ASKED))
    assert verified(Machine(tee, old=True)(ASKED)).azure is not None  # agents that could not write them


# A TPM alone


def test_a_tpm_alone_is_believed_by_name() -> None:
    evidence = Machine("tpm", events=LOG)(ASKED)
    with pytest.raises(VerifyError, match=f"tpm key: sha256 is {AK.hex()}, want one that a policy names"):
        verified(evidence, roots=roots())
    claims = verified(evidence)
    state: JSON = {"name": "s", "pcrs": {"pcr4": (b"\x04" * 32).hex(), "pcr15": "events"}}
    wanted = Policy.from_raw({"version": 1, "tpm": {"keys": [AK.hex()], "states": [state]}})
    assert wanted.roots.tpm_keys == {AK}
    assert appraise(claims, wanted, now=NOW).passed
    other = Policy.from_raw({"version": 1, "tpm": {"keys": ["00" * 32], "states": [state]}})
    assert appraise(claims, other, now=NOW).reasons == (f"tpm key is {AK.hex()}, want {'00' * 32}",)
    assert not appraise(claims, policy(tpm={"states": [state]}), now=NOW).passed
    assert not appraise(verified(Machine(events=LOG)(ASKED)), wanted, now=NOW).passed


@pytest.mark.parametrize("size", [32, 48, 64])
def test_agents_differ_in_how_much_a_tpm_signs(size: int) -> None:
    digest = ASKED.digest()
    machine = Machine("tpm")
    quoted = machine._quoted(digest.ljust(64, b"\0")[:size])
    evidence = CompositeEvidence(primary=replace(machine.primary(digest), tpm=quoted))
    assert verified(evidence, digests(evidence)).tee == "tpm"
    assert quoted.attest and len(TPMQuote.parse(quoted.attest).extra_data) == size


@pytest.mark.parametrize("size", [1, 16, 31, 33])
def test_less_than_half_a_digest_is_none(size: int) -> None:
    machine = Machine("tpm")
    evidence = CompositeEvidence(
        primary=replace(machine.primary(ASKED.digest()), tpm=machine._quoted(ASKED.digest()[:size]))
    )
    with pytest.raises(VerifyError, match="tpm quote: extra_data differs"):
        verified(evidence, digests(evidence))


def test_a_key_that_is_none_is_malformed() -> None:
    primary = Machine("tpm").primary(ASKED.digest())
    raw = ed25519.Ed25519PrivateKey.generate().public_key()
    other = raw.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for key in (b"x", other):
        evidence = CompositeEvidence(primary=replace(primary, key=key))
        with pytest.raises(FormatError, match="ak_public"):
            verified(evidence, digests(evidence))


# Parts that were changed on the way


@pytest.mark.parametrize("tee", MACHINES)
def test_no_flipped_bit_of_what_is_signed_verifies(tee: KBSTee) -> None:
    evidence = Machine(tee, events=LOG)(ASKED)
    primary = evidence.primary
    for name in ("report", "certificates"):
        data = cast("bytes", getattr(primary, name))
        signed = SNPReport.parse(data).signed_part if (tee, name) == ("snp", "report") else data
        for at in range(0, len(signed), max(1, len(signed) // 40)):
            changed = bytearray(data)
            changed[at] ^= 1
            part: dict[str, Any] = {name: bytes(changed)}
            _refused(replace(evidence, primary=replace(primary, **part)), tee, name)
    if primary.tpm is not None:
        for at in range(len(primary.tpm.attest)):
            changed = bytearray(primary.tpm.attest)
            changed[at] ^= 1
            tpm = replace(primary.tpm, attest=bytes(changed))
            _refused(replace(evidence, primary=replace(primary, tpm=tpm)), tee, "attest")
        for index in range(24):
            values = dict(primary.tpm.pcrs) | {index: b"\xee" * 32}
            tpm = replace(primary.tpm, pcrs=tuple(sorted(values.items())))
            _refused(replace(evidence, primary=replace(primary, tpm=tpm)), tee, f"pcr {index}")


def _refused(evidence: CompositeEvidence, tee: str, what: str) -> None:
    if tee in ("snp", "az-snp-vtpm") and what == "certificates":
        return  # the host's hints: another certificate is none, and the verifier's own takes its place
    try:
        claims = verified(evidence)
    except StrongroomError:
        return
    intact = verified(Machine(cast("KBSTee", tee), events=LOG)(ASKED))
    # What nothing signs, such as a number the quoting enclave never read, changes nothing that is claimed.
    assert replace(claims, not_checked=()) == replace(intact, not_checked=()), what


@needs_vectors
def test_a_genuine_report_carries_another_digest() -> None:
    vector = genuine("genoa-v3-azure")
    primary = KBSEvidence(tee="snp", report=vector.report, certificates=vector.table.pack())
    with pytest.raises(VerifyError, match="report_data differs"):
        verified(CompositeEvidence(primary=primary))


def test_the_vectors_of_the_protocol() -> None:
    """Digests that were made once, and checked with two canonicalisers of other makers."""
    nonce = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    secret = int.from_bytes(sha256(b"tee key").digest(), "big")
    jwk = pack_jwk(ec.derive_private_key(secret, ec.SECP256R1()).public_key())
    asked = Collect(Challenge(nonce), jwk)
    assert asked.device_nonce.hex() == "f4b39bba933d6e8ccbe043d31758e04973477676eab86cc3950560e75e4749e3"
    assert asked.digest().hex() == (
        "72aa6d1ff1978bfd60a5c2772442dc25c2b322c2c26205abb6d3f6c7ae268461ae135a3ab829f51fe3f9f352c7565df7"
    )
    evidence = Machine()(asked)
    assert verified(evidence, digests(evidence, asked)).tee == "snp"
