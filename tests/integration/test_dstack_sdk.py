"""What dstack's own SDK computes of what we make, and we of what it makes. Skipped where it is not installed."""

import json
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from strongroom.evidence import dstack_log
from strongroom.evidence.dstack_app import TCB, AppInfo, Info
from strongroom.evidence.dstack_identity import pack_compose
from strongroom.evidence.dstack_log import RuntimeEvent, replay
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.tdx import TDXQuote
from strongroom.keys import environment
from strongroom.keys.dstack import AppKeys
from strongroom.keys.recoverable import compressed, private_key
from strongroom.receipts.legacy import address
from tests import VECTORS

sdk: Any = pytest.importorskip("dstack_sdk")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

KEYS = AppKeys.from_seed(bytes(range(32)))
SERVICE = private_key(bytes(31) + b"\5")
SIGNER = "0x" + compressed(SERVICE.public_key()).hex()


def quote(event_log: str) -> Any:
    return sdk.GetQuoteResponse(quote="00", event_log=event_log, report_data="", vm_config="")


def test_our_log_replays_to_its_head() -> None:
    ours = EventLog((Event("userdata", bytes(32)), Event("boot-done", b"{}")))
    answer = quote(dstack_log.pack(dstack_log.view(ours)))
    assert answer.replay_rtmrs() == {0: "00" * 48, 1: "00" * 48, 2: "00" * 48, 3: ours.head.hex()}
    assert [event.event for event in answer.decode_event_log()] == ["userdata", "boot-done"]


def test_a_stripped_log_replays_once_we_wrote_it() -> None:
    log = tuple(RuntimeEvent(name=n, payload=b"x", version=v).entry for n, v in (("a", 1), ("b", 2)))  # type: ignore[arg-type]
    answer = quote(dstack_log.pack(dstack_log.stripped(log)))
    assert answer.replay_rtmrs()[3] == replay(log, 3).hex()


def test_a_real_log_replays_to_its_quote() -> None:
    folder = VECTORS / "tdx" / "v4-dstack"
    if not folder.exists():
        pytest.skip("no real vectors beside this checkout")
    log = dstack_log.parse((folder / "event_log.json").read_text())
    body = TDXQuote.parse((folder / "quote.bin").read_bytes(), trailing="any").body
    assert quote(dstack_log.pack(log)).replay_rtmrs() == {n: mr.hex() for n, mr in enumerate(body.rtmrs)}


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize(
    "compose",
    [
        {
            "runner": "docker-compose",
            "name": "é",
            "allowed_envs": ["B", "A"],
            "manifest_version": 2,
            "features": None,
        },
        {"runner": "bash", "bash_script": "x\n", "docker_compose_file": "y", "pre_launch_script": ""},
        {
            "runner": "docker-compose",
            "bash_script": "x",
            "requirements": {"b": {"d": 1, "c": None}, "a": [1.5, "\u2028"]},
        },
    ],
)
def test_the_compose_hash(compose: dict[str, Any], normalized: bool) -> None:
    theirs = sdk.get_compose_hash(json.loads(json.dumps(compose)), normalize=normalized)
    assert sha256(pack_compose(compose, normalized=normalized)).hexdigest() == theirs


def test_an_environment_it_encrypts_opens_here() -> None:
    private = X25519PrivateKey.from_private_bytes(bytes(range(32))).private_bytes_raw()
    pairs = [sdk.EnvVar("A", "1"), sdk.EnvVar("B", "é\n"), sdk.EnvVar("NOT_ALLOWED", "x")]
    blob = bytes.fromhex(sdk.encrypt_env_vars_sync(pairs, "0x" + environment.public_key(private).hex()))
    found = environment.parse(environment.open_sealed(blob, private), allowed={"A", "B"})
    assert [(variable.name, variable.value) for variable in found] == [("A", "1"), ("B", "é\n")]


def test_it_verifies_a_key_that_our_service_signs() -> None:
    key, app, now = bytes([9]) * 32, bytes(range(20)), int(time.time())
    for signed_at, want in ((now, SIGNER), (now - 400, None), (now + 120, None)):
        signature = environment.sign_key(SERVICE, key, app_id=app, signed_at=signed_at)
        assert sdk.verify_env_encrypt_public_key(key, signature, app.hex(), signed_at) == want
    legacy = environment.sign_key(SERVICE, key, app_id=app, signed_at=None)
    assert sdk.verify_env_encrypt_public_key_legacy(key, legacy, app.hex()) == SIGNER


@pytest.mark.parametrize("path", ["", "test", "a/b"])
def test_an_account_of_our_key(path: str) -> None:
    ethereum = pytest.importorskip("dstack_sdk.ethereum")
    solana = pytest.importorskip("dstack_sdk.solana")
    claim = KEYS.claim_v0(path, "signing", "")
    answer = sdk.GetKeyResponse(key=claim.key.hex(), signature_chain=[link.hex() for link in claim.chain])
    assert answer.decode_signature_chain() == list(claim.chain)
    account: Callable[[Any], Any] = ethereum.to_account
    assert account(answer).address == address(private_key(claim.key))
    assert ethereum.to_account_secure(answer).address == account(answer).address
    assert bytes(solana.to_keypair(answer).pubkey()) == KEYS.claim_v0(path, "", "ed25519").public_key


def test_it_reads_our_info() -> None:
    app = AppInfo(
        app_id=bytes(20),
        compose_hash=bytes(32),
        instance_id=b"",
        device_id=bytes(32),
        mr_system=bytes(32),
        mr_aggregated=bytes(32),
        os_image_hash=b"",
        key_provider_info=b'{"name":"none","id":""}',
    )
    log = dstack_log.view(EventLog((Event("boot-done", b"{}"),)))
    info = Info(
        app=app, tcb=TCB(event_log=log, app_compose="{}", more={"tee": {"kind": "snp"}}), app_name="a"
    )
    read = sdk.InfoResponse.parse_response(info.to_json(), sdk.TcbInfo)
    assert (read.app_id, read.tcb_info.rtmr3, read.tcb_info.app_compose) == ("00" * 20, "00" * 48, "{}")
    assert read.tcb_info.event_log[0].digest == log[0].digest.hex()
