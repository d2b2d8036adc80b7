"""Mirrors guest/coco/rest.py, agent.py and guest/resources.py: from a program's request to the broker and back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from guest.coco.plan import Plan
from guest.coco.rules import Right, Rule, Rules
from guest.coco.trouble import Trouble
from guest.resources import _pem, trouble
from strongroom.broker.errors import Kind
from strongroom.errors import (
    FormatError,
    MachineError,
    PolicyError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.keys.sealed_secret import Vault, envelope, sign
from tests.fakes.coco import MODEL, SECRET, UID, Coco, allowed, everything, keeper, served

Answer = tuple[int, str, bytes]
SIGNER: Final = ec.generate_private_key(ec.SECP256R1())
KID: Final = "kbs:///default/signer/key"
TEXT: Final = "text/plain; charset=utf-8"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coco]:
    plan = Plan(rules=everything(), signers={KID: SIGNER.public_key()})
    with served(tmp_path_factory.mktemp("s"), plan=plan) as coco:
        yield coco


def test_a_secret_comes_as_its_bytes(shared: Coco) -> None:
    assert shared.get("/cdh/resource/default/db/password") == (200, "application/octet-stream", SECRET)


def test_one_handshake_serves_many_secrets(shared: Coco) -> None:
    for _ in range(3):
        assert shared.get("/cdh/resource/default/db/password")[0] == 200
    assert sum(b"POST /kbs/v0/auth" in request for request in shared.heard.requests) == 1


def test_what_this_machine_itself_lives_by_is_for_nobody(shared: Coco) -> None:
    asked = len(shared.keeper.judged)
    status, _, body = shared.get(f"/cdh/resource/{str(MODEL).removeprefix('kbs:///')}")
    assert status == 403 and body.startswith(
        b"not allowed: kbs:///default/model/llama: it is a key of this machine"
    )
    assert len(shared.keeper.judged) == asked


def test_a_secret_that_is_not_there_is_told_from_a_refusal(tmp_path: Path) -> None:
    told = keeper()
    with served(tmp_path, told=told) as coco:
        status, kind, body = coco.get("/cdh/resource/default/db/other")
        assert (status, kind) == (500, TEXT)
        assert body.startswith(b"missing: ") and b"does not exist" in body
        told.reasons = ("measurement is 00, want 11",)
        status, kind, body = coco.get("/cdh/resource/default/db/password")
        assert (status, kind) == (500, TEXT)
        assert body.startswith(b"refused: ") and b"PolicyDeny" in body and b"measurement is 00" in body


def test_evidence_that_the_broker_does_not_believe_is_told(tmp_path: Path) -> None:
    told = keeper()
    told.forged = "snp report: signature is wrong"
    with served(tmp_path, told=told) as coco:
        status, _, body = coco.get("/cdh/resource/default/db/password")
    assert status == 500 and body.startswith(b"not genuine: ") and b"signature is wrong" in body


def test_a_broker_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with served(
        tmp_path, respond=lambda _: b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", deadline_s=0.3
    ) as coco:
        status, _, body = coco.get("/cdh/resource/default/db/password")
    assert status == 500 and body.startswith(b"unreachable: ")


def test_an_agent_that_is_gone_is_told(tmp_path: Path) -> None:
    with served(tmp_path) as coco:
        (tmp_path / "resources.sock").unlink()
        status, _, body = coco.get("/cdh/resource/default/db/password")
    assert (status, body) == (500, b"unreachable: the agent is not there: no such file or directory")


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(
    ("patterns", "path", "given"),
    [
        (("default/db/password",), "default/db/password", True),
        (("default/db/",), "default/db/password", True),
        (("default/",), "default/db/password", True),
        (("*",), "default/db/password", True),
        (("default/db/passwor",), "default/db/password", False),
        (("default/d/",), "default/db/password", False),
        (("default/db/password/",), "default/db/password", False),
        ((), "default/db/password", False),
    ],
)
def test_a_rule_lists_what_a_caller_may_have(
    tmp_path: Path, patterns: tuple[str, ...], path: str, given: bool
) -> None:
    with allowed(tmp_path, Rule(resources=patterns)) as coco:
        status, _, body = coco.get(f"/cdh/resource/{path}")
        assert status == (200 if given else 403)
        if not given:
            assert body.decode() == (
                f"not allowed: uid-{UID}: no rule lists resource '{path}', want one in strongroom.coco.rules "
                f"with uid: {UID}, resources: ['{path}']"
            )
            assert not coco.heard.connections


def test_the_agent_believes_no_rule_but_its_own(tmp_path: Path) -> None:
    with served(tmp_path) as coco:
        coco.resources._rules = Rules(uids={UID: Rule(resources=("default/app/",))})
        for target in ("/cdh/resource/default/db/password", "/aa/token?token_type=kbs",
                       "/aa/evidence?runtime_data=a", "/aa/additional-evidence?runtime_data=a"):  # fmt: skip
            status, _, body = coco.get(target)
            assert status == 403 and body.startswith(b"not allowed: ") and b"no rule of userdata" in body
        assert not coco.heard.connections


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/", "GET", 404),
        ("/cdh", "GET", 404),
        ("/cdh/resource", "GET", 404),
        ("/aa/tokens?token_type=kbs", "GET", 404),
        ("/cdh/resource/default/db/password", "POST", 405),
        ("/cdh/resource/default/db/password", "HEAD", 405),
        ("/aa/token?token_type=kbs", "POST", 405),
        ("/aa/aael", "GET", 405),
        ("/cdh/resource/default/db", "GET", 400),
        ("/cdh/resource/default/db/password/more", "GET", 400),
        ("/cdh/resource/default/db/..", "GET", 400),
        ("/cdh/resource/default/db/%2e%2e", "GET", 400),
        ("/cdh/resource/default/db%2Fpassword/x", "GET", 400),
        ("/cdh/resource/default/db/pass%00word", "GET", 400),
        ("/aa/token", "GET", 400),
        ("/aa/token?", "GET", 400),
        ("/aa/token?token_type", "GET", 400),
        ("/aa/token?token_type=kbs&token_type=kbs", "GET", 400),
        ("/aa/token?" + "&".join(f"a{n}=1" for n in range(20)), "GET", 400),
        ("/aa/token?token_type=%ff", "GET", 400),
        ("/aa/evidence", "GET", 400),
        ("/aa/evidence?runtime_data=" + "a" * 65, "GET", 400),
        ("/aa/evidence?runtime_data=a&encoding=hex", "GET", 400),
        ("/aa/evidence?runtime_data=a%2B&encoding=base64", "GET", 400),
        ("/aa/additional-evidence", "GET", 400),
    ],
)
def test_what_is_not_understood_is_told_so(shared: Coco, target: str, method: str, status: int) -> None:
    found = shared.get(target, method=method) if method != "HEAD" else (405, "", b"")
    assert found[0] == status
    assert b"\n" not in found[2]


def test_a_token_comes_with_its_key(shared: Coco) -> None:
    status, kind, body = shared.get("/aa/token?token_type=kbs")
    said = json.loads(body)
    assert (status, kind) == (200, "application/json") and said.keys() == {"token", "tee_keypair"}
    assert said["token"].count(".") == 2
    assert isinstance(load_pem_private_key(said["tee_keypair"].encode(), None), ec.EllipticCurvePrivateKey)
    status, _, body = shared.get("/aa/token?token_type=coco_as")
    assert (status, body) == (500, b"failed: token_type is 'coco_as', and there is kbs alone")


def test_keys_are_written_as_agents_write_them() -> None:
    assert _pem(ec.generate_private_key(ec.SECP521R1())).startswith("-----BEGIN PRIVATE KEY-----\n")
    assert _pem(rsa.generate_private_key(65537, 2048)).startswith("-----BEGIN RSA PRIVATE KEY-----\n")


@pytest.mark.parametrize("right", Right)
def test_everything_else_takes_a_right_by_name(tmp_path: Path, right: Right) -> None:
    asked = {
        Right.TOKEN: ("/aa/token?token_type=kbs", "GET", None),
        Right.EVIDENCE: ("/aa/evidence?runtime_data=a", "GET", None),
        Right.RAW_EVIDENCE: ("/aa/evidence?runtime_data=" + "a" * 64, "GET", None),
        Right.AAEL: ("/aa/aael", "POST", b'{"domain":"a","operation":"b","content":"c"}'),
    }
    with allowed(tmp_path, Rule(resources=("*",), allow=frozenset({right}))) as coco:
        for other, (target, method, body) in asked.items():
            status, _, said = coco.get(target, method=method, body=body)
            assert status == (200 if other is right else 403)
            if other is not right:
                assert f"no rule allows {other}, want one in strongroom.coco.rules" in said.decode()


def test_what_machine_this_is_is_no_secret(tmp_path: Path) -> None:
    with allowed(tmp_path, Rule()) as coco:
        assert json.loads(coco.get("/info")[2]) == {
            "version": "1.2",
            "tee": "snp",
            "additional_tees": [],
            "feature": "all",
        }


def unsealed(coco: Coco, text: str) -> Answer:
    return coco.get("/strongroom/unseal", method="POST", body=text.encode())


def test_a_sealed_secret_is_opened_for_who_may_have_it(shared: Coco) -> None:
    assert unsealed(shared, sign(Vault("kbs:///default/db/password"), SIGNER, kid=KID)) == (
        200,
        "application/octet-stream",
        SECRET,
    )
    sealed = envelope(
        b"inside", key=bytes(range(32)), key_id="kbs:///default/db/key", content_key=bytes(32), iv=bytes(12)
    )
    assert unsealed(shared, sign(sealed, SIGNER, kid=KID))[2] == b"inside"


def test_a_sealed_secret_of_nobody_we_know_is_refused(shared: Coco) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    vault = Vault("kbs:///default/db/password")
    status, _, body = unsealed(shared, sign(vault, other, kid="other"))
    assert status == 403 and b"no signer 'other', want one in strongroom.coco.signers" in body
    status, _, body = unsealed(shared, sign(vault, other, kid=KID))
    assert status == 500 and body.startswith(b"not genuine: sealed secret: not signed by the key of")
    status, _, body = unsealed(shared, sign(Vault("kbs:///a/b/c", "aws"), SIGNER, kid=KID))
    assert (status, body) == (500, b"failed: sealed secret: provider is 'aws', want kbs")
    assert unsealed(shared, "sealed.a.b")[0] == unsealed(shared, "\xff")[0] == 400


def test_a_sealed_secret_gives_no_more_than_the_rules(tmp_path: Path) -> None:
    plan = Plan(
        rules=Rules(uids={UID: Rule(resources=("default/app/",))}), signers={KID: SIGNER.public_key()}
    )
    with served(tmp_path, plan=plan) as coco:
        status, _, body = unsealed(coco, sign(Vault("kbs:///default/db/password"), SIGNER, kid=KID))
        assert status == 403 and b"no rule lists resource 'default/db/password'" in body
        sealed = envelope(b"", key=bytes(32), key_id=str(MODEL), content_key=bytes(32), iv=bytes(12))
        assert unsealed(coco, sign(sealed, SIGNER, kid=KID))[0] == 403


def test_before_the_boot_has_come_that_far_there_is_nothing(tmp_path: Path) -> None:
    with served(tmp_path) as coco:
        coco.resources._connect = None
        status, _, body = coco.get("/cdh/resource/default/db/password")
    assert (status, body) == (500, b"failed: resources: the boot has not come that far")


@pytest.mark.guarantee("G8")
def test_only_the_rests_own_process_is_answered(tmp_path: Path) -> None:
    with served(tmp_path) as coco:
        coco.resources._who = lambda _: "ssh.service"
        status, _, body = coco.get("/cdh/resource/default/db/password")
    assert status == 403 and b"asked by ssh.service, want strongroom-coco.service" in body


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PolicyError(f"{Kind.POLICY_DENY}: x"), Trouble.REFUSED),
        (PolicyError(f"{Kind.PLUGIN_INTERNAL}: x"), Trouble.MISSING),
        (VerifyError("x"), Trouble.NOT_GENUINE),
        (TransportError("x"), Trouble.UNREACHABLE),
        (MachineError("x"), Trouble.FAILED),
        (FormatError("x"), Trouble.FAILED),
    ],
)
def test_a_no_is_of_one_kind(error: StrongroomError, kind: Trouble) -> None:
    assert trouble(error) is kind


def test_no_rules_no_answers() -> None:
    assert not Rules().covers("a/b/c") and not any(Rules().allows(right) for right in Right)
