"""Mirrors strongroom/host/attested.py: honest and lying servers over real TLS on loopback."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demo.silicon.mint import DEBUG, POLICY
from strongroom.appraise.policy import Policy
from strongroom.errors import (
    ConfigError,
    FormatError,
    PolicyError,
    ProtocolError,
    TransportError,
    VerifyError,
)
from strongroom.evidence.binding import Purpose, channel_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.host.attested import MAX_EVIDENCE, Address, AttestedConnection, Candidate, Door
from strongroom.host.tls import TLSEngine
from strongroom.host.yamltext import parse_yaml
from strongroom.verify.roots import PRODUCTION
from strongroom.wire.canonical import JSON, pack_json
from tests.fakes import accelerated, composite
from tests.fakes import silicon as silicon_fake
from tests.fakes.machine import Machine, Request, policy_text, serving
from tests.fakes.nvidia import nvidia

PROMPT = b'{"messages":"a secret prompt"}'


def policy_for(machine: Machine, **changes: JSON) -> Policy:
    return Policy.from_raw(parse_yaml(policy_text(machine, **changes), "policy"))


def ask(machine: Machine, policy: Policy | None = None) -> bytes:
    """What every client does: open, then send a prompt."""
    policy = policy or policy_for(machine)
    with (
        serving(machine) as url,
        AttestedConnection.open(url, policy=policy, roots=policy.roots, now=datetime.now(UTC)) as connection,
    ):
        return connection.request("POST", "/v1/chat/completions", body=PROMPT).read()


def test_an_honest_machine_is_accepted_and_answers() -> None:
    machine = Machine()
    assert b"choices" in ask(machine)
    assert [request.body for request in machine.prompts] == [PROMPT]


def test_an_examination_tells_what_was_found() -> None:
    machine = Machine()
    policy = policy_for(machine)
    with serving(machine) as url, Candidate.dial(Address.parse(url)) as candidate:
        examined = candidate.examine(policy=policy, roots=policy.roots, now=datetime.now(UTC))
    assert examined.passed and examined.simulated and not examined.reasons
    assert [finding.purpose for finding in examined.findings] == ["channel", "ra-tls", "receipt-key"]
    assert examined.channel.claims.events == machine.events
    assert examined.receipt_key == machine.receipt_spki
    assert examined.group


@dataclass
class Receiving(Machine):
    """A door that takes a model in: it has no receipt key."""

    def evidence(self, nonce: bytes, exporter: bytes) -> bytes:
        return pack_json({"channel": self.channel_bundle(nonce, exporter).to_json()})


def test_a_door_without_receipts_is_accepted_where_one_is_wanted() -> None:
    machine = Receiving()
    policy, now = policy_for(machine), datetime.now(UTC)
    with (
        serving(machine) as url,
        AttestedConnection.open(
            url, policy=policy, roots=policy.roots, now=now, door=Door.RECEIVING
        ) as connection,
    ):
        examined = connection.examination
        one, other = (connection.exporter(b"EXPORTER-test", bytes([n])) for n in range(2))
    assert [finding.purpose for finding in examined.findings] == ["channel", "ra-tls"]
    assert (examined.receipts, examined.receipt_key) == (None, None)
    assert one != other and len(one) == len(other) == 32


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    ("kind", "door"), [(Receiving, Door.SERVING), (Machine, Door.RECEIVING)], ids=["receiving", "serving"]
)
def test_neither_door_passes_for_the_other(kind: type[Machine], door: Door) -> None:
    machine = kind()
    policy, now = policy_for(machine), datetime.now(UTC)
    with serving(machine) as url, pytest.raises(FormatError, match="want exactly the keys channel"):
        AttestedConnection.open(url, policy=policy, roots=policy.roots, now=now, door=door)


@dataclass
class Replaying(Machine):
    """Answers with the evidence it gave somebody else a moment ago."""

    kept: list[Bundle] = field(default_factory=list)

    def channel_bundle(self, nonce: bytes, exporter: bytes) -> Bundle:
        self.kept.append(super().channel_bundle(nonce, exporter))
        return self.kept[0]


@pytest.mark.guarantee("G7")
def test_evidence_for_an_older_nonce_is_refused() -> None:
    machine = Replaying()
    ask(machine)
    with pytest.raises(VerifyError, match="made for another challenge"):
        ask(machine)
    assert len(machine.prompts) == 1


@dataclass
class Claiming(Replaying):
    """Writes the right challenge beside the old evidence."""

    def channel_bundle(self, nonce: bytes, exporter: bytes) -> Bundle:
        old = super().channel_bundle(nonce, exporter)
        return replace(old, challenge=channel_challenge(nonce, exporter))


@pytest.mark.guarantee("G7")
def test_a_challenge_only_written_beside_old_evidence_is_refused() -> None:
    machine = Claiming()
    ask(machine)
    with pytest.raises(VerifyError, match="report_data differs"):
        ask(machine)
    assert len(machine.prompts) == 1


@dataclass
class Relay(Machine):
    """Holds the stolen TLS key and certificate of `victim`, asks it for evidence over a connection of its own."""

    victim: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        self.key = self.victim.key
        super().__post_init__()
        self.context = self.victim.context

    def answer(self, request: Request, engine: TLSEngine) -> tuple[int, dict[str, str], list[bytes]]:
        if "evidence?nonce=" in request.target:
            nonce = bytes.fromhex(request.target.partition("=")[2])
            # The victim answers the relay's connection, whose exporter is another one.
            return 200, {}, [self.victim.evidence(nonce, exporter=bytes(32))]
        return super().answer(request, engine)


@pytest.mark.guarantee("G8")
def test_relayed_evidence_of_a_genuine_machine_is_refused() -> None:
    relay = Relay()
    with pytest.raises(VerifyError, match="made for another challenge"):
        ask(relay, policy_for(relay.victim))
    assert relay.prompts == []


@dataclass
class OtherKey(Machine):
    """Shows channel evidence that speaks for a key which is not that of its certificate."""

    def channel_bundle(self, nonce: bytes, exporter: bytes) -> Bundle:
        other = ec.generate_private_key(ec.SECP256R1()).public_key()
        key = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return self.attest(Purpose.CHANNEL, channel_challenge(nonce, exporter), key)


@dataclass
class OtherPurpose(Machine):
    """An application inside the machine obtained evidence over the channel's challenge."""

    def channel_bundle(self, nonce: bytes, exporter: bytes) -> Bundle:
        made = self.attest(Purpose.APPLICATION, channel_challenge(nonce, exporter), self.spki)
        return replace(made, purpose=Purpose.CHANNEL)


@dataclass
class TwoMachines(Machine):
    """The certificate's key also lives in a second acceptable machine."""

    def channel_bundle(self, nonce: bytes, exporter: bytes) -> Bundle:
        second = replace(self.silicon, host_data=bytes(32))
        return silicon_fake.bundle(
            second,
            purpose=Purpose.CHANNEL,
            challenge=channel_challenge(nonce, exporter),
            key=self.spki,
            events=self.events,
        )


@dataclass
class TwoBoots(Machine):
    """The certificate's key survived a launch of the very same guest on the very same chip."""

    def channel_bundle(self, nonce: bytes, exporter: bytes) -> Bundle:
        second = replace(self.silicon, report_id=b"\1" * 32)
        challenge = channel_challenge(nonce, exporter)
        return replace(self, silicon=second).attest(Purpose.CHANNEL, challenge, self.spki)


@dataclass
class TwoLogs(Machine):
    """The log that certificate and receipt key were made under did not grow into that of now."""

    def channel_bundle(self, nonce: bytes, exporter: bytes) -> Bundle:
        first, *others = self.events.events
        anew = EventLog((replace(first, payload=b"\1" * 32), *others))
        return replace(self, events=anew).attest(
            Purpose.CHANNEL, channel_challenge(nonce, exporter), self.spki
        )


@dataclass
class Growing(Machine):
    """Goes on after its certificate was made, as an honest boot does."""

    def channel_bundle(self, nonce: bytes, exporter: bytes) -> Bundle:
        longer = self.events.extend(Event("boot-done", b"{}"))
        return replace(self, events=longer).attest(
            Purpose.CHANNEL, channel_challenge(nonce, exporter), self.spki
        )


@dataclass
class OtherReceipts(Machine):
    """Signs receipts in another boot."""

    def receipt_bundle(self) -> Bundle:
        silicon, self.silicon = self.silicon, replace(self.silicon, report_id=b"\1" * 32)
        made, self.silicon = super().receipt_bundle(), silicon
        return made


@dataclass
class OtherGPUs(Machine):
    """Shows other GPUs with every answer."""

    shown: int = 0

    def attest(self, purpose: Purpose, challenge: bytes, key: bytes) -> Bundle:
        self.shown += 1
        self.gpus = lambda nonce: composite.gpus([nvidia().device(self.shown)], nonce=nonce)
        return super().attest(purpose, challenge, key)


def test_a_log_that_grew_is_the_same_boot() -> None:
    machine = Growing()
    assert b"choices" in ask(machine)


def test_a_machine_with_gpus_is_one_machine() -> None:
    machine = accelerated.machine()
    assert b"choices" in ask(machine, policy_for(machine, **accelerated.accepted(machine)))


@pytest.mark.guarantee("G8")
def test_other_gpus_than_those_of_the_certificate_are_refused() -> None:
    machine = accelerated.machine(1, kind=OtherGPUs)
    with pytest.raises(VerifyError, match=r"certificate: gpus is [0-9a-f]{8}…, want [0-9a-f]{8}…: one boot"):
        ask(machine, policy_for(machine, **accelerated.accepted(machine, 1)))
    assert machine.prompts == []


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        (OtherKey, {}, "report_data differs"),
        (OtherPurpose, {}, "report_data differs"),
        (TwoMachines, {"host_data": "any"}, "certificate: host_data is 0001"),
        (TwoBoots, {}, "certificate: report id is 00000000…, want 01010101…: one boot of one machine"),
        (TwoLogs, {}, "certificate: event log is another, want a beginning of that of now"),
        (OtherReceipts, {}, "receipt key: report id is 01010101…, want 00000000…: one boot of one machine"),
    ],
)
def test_evidence_speaks_for_one_key_one_use_and_one_machine(
    kind: Callable[[], Machine], changes: dict[str, JSON], why: str
) -> None:
    machine = kind()
    with pytest.raises(VerifyError, match=why):
        ask(machine, policy_for(machine, **changes))
    assert machine.prompts == []


@pytest.mark.guarantee("G6")
def test_a_debug_machine_is_refused_before_any_prompt() -> None:
    machine = Machine(silicon=silicon_fake.silicon(policy=POLICY | DEBUG))
    with pytest.raises(PolicyError, match="debug is on, want off"):
        ask(machine)
    assert machine.prompts == []


@pytest.mark.guarantee("G18")
def test_a_simulated_machine_is_not_genuine_to_production_roots() -> None:
    machine = Machine()
    policy = policy_for(machine, insecure_simulated_roots=None)
    assert policy.roots == PRODUCTION
    with pytest.raises(VerifyError):
        ask(machine, policy)
    assert machine.requests == []  # not even the evidence was asked for


@pytest.mark.guarantee("G16")
def test_every_reason_is_in_one_line() -> None:
    machine = Machine()
    policy = policy_for(machine, host_data=["00" * 32], engine={"versions": ["0.0.1"]}, gpus=8)
    with pytest.raises(PolicyError) as caught:
        ask(machine, policy)
    line = str(caught.value)
    assert all(word in line for word in ("host_data", "engine version", "gpus")) and "\n" not in line
    assert line.count("host_data is") == 1  # three pieces of evidence, one reason
    assert machine.prompts == []


@dataclass
class Answering(Machine):
    """Gives any bytes for evidence."""

    reply: tuple[int, bytes] = (200, b"")

    def answer(self, request: Request, engine: TLSEngine) -> tuple[int, dict[str, str], list[bytes]]:
        return self.reply[0], {}, [self.reply[1]]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, b"{}", ProtocolError),
        (500, b"{}", ProtocolError),
        (200, b"{", FormatError),
        (200, b"[]", FormatError),
        (200, b'{"channel":{},"receipt_key":{}}', FormatError),
        (200, b'{"channel":{},"receipt_key":{},"more":1}', FormatError),
        (200, b" " * MAX_EVIDENCE + b" ", ProtocolError),
    ],
)
def test_an_answer_that_is_no_evidence_is_refused(status: int, body: bytes, error: type[Exception]) -> None:
    machine = Answering(reply=(status, body))
    with pytest.raises(error):
        ask(machine)
    assert machine.prompts == []


@dataclass
class ReceiptTime(Machine):
    """Dates its receipt key with any number."""

    seconds: int = 0

    def evidence(self, nonce: bytes, exporter: bytes) -> bytes:
        honest = str(int(self.not_before.timestamp())).encode()
        return super().evidence(nonce, exporter).replace(honest, str(self.seconds).encode())


@pytest.mark.parametrize(
    ("seconds", "error"), [(0, VerifyError), (2**63, FormatError), (-60, FormatError), (61, FormatError)]
)
def test_the_receipt_keys_time_is_checked(seconds: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        ask(ReceiptTime(seconds=seconds))


def test_a_certificate_of_another_day_is_refused() -> None:
    machine = Machine()
    policy, later = policy_for(machine), datetime.now(UTC) + timedelta(days=2)
    with serving(machine) as url, pytest.raises(VerifyError, match="valid"):
        AttestedConnection.open(url, policy=policy, roots=policy.roots, now=later)
    assert machine.requests == []


@pytest.mark.guarantee("G8")
def test_an_examination_opens_only_its_own_connection() -> None:
    machine = Machine()
    policy = policy_for(machine)
    with (
        serving(machine) as url,
        Candidate.dial(Address.parse(url)) as first,
        Candidate.dial(Address.parse(url)) as second,
    ):
        examined = first.examine(policy=policy, roots=policy.roots, now=datetime.now(UTC))
        with pytest.raises(VerifyError, match="another connection"):
            second.accept(examined)


def test_a_candidate_has_nothing_to_send_a_prompt_with() -> None:
    assert not hasattr(Candidate, "request")


def test_nobody_there_is_a_transport_error() -> None:
    machine = Machine()
    with serving(machine) as url:
        pass
    policy = policy_for(machine)
    with pytest.raises(TransportError):
        AttestedConnection.open(url, policy=policy, roots=policy.roots, now=datetime.now(UTC))


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ConfigError, match="timeout: got"):
        Candidate.dial(Address("127.0.0.1", 9), timeout=timeout)


@pytest.mark.parametrize(
    ("url", "host", "port", "shown"),
    [
        ("https://llm.example", "llm.example", 443, "llm.example"),
        ("https://llm.example:8443/", "llm.example", 8443, "llm.example:8443"),
        ("https://10.0.0.1", "10.0.0.1", 443, "10.0.0.1"),
        ("https://[::1]:9", "::1", 9, "[::1]:9"),
    ],
)
def test_addresses(url: str, host: str, port: int, shown: str) -> None:
    address = Address.parse(url)
    assert (address.host, address.port, str(address)) == (host, port, shown)


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    "url",
    [
        "http://llm.example", "llm.example", "https://", "https://a/b", "https://a?x", "https://a#x",
        "https://u:p@a", "https://@a", "https://a:99999", "https://a:b", "https://[::1", "https://a b",
        "https://a\r\nx: y", "ftp://a", "", "https://-a",
        "https://a:0", "https://a..b", f"https://{'a' * 64}.b", f"https://{'a.' * 127}b", "https://a\nb",
    ],
)  # fmt: skip
def test_anything_else_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="want https://HOST"):
        Address.parse(url)
