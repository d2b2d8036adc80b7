"""Mirrors strongroom/cli/key.py: keys go where they were asked to, and nowhere by accident."""

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from guest.keysock.rights import Method, Rights, Rule
from strongroom.cli.main import main
from strongroom.wire.canonical import b64u, unb64u
from tests.fakes.answering import answering, reply
from tests.fakes.keysock import Keysock, call, served

ME = f"uid-{os.getuid()}"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def keysock(socket_dir: Path) -> Iterator[Keysock]:
    methods = frozenset({Method.GET_KEY, Method.SIGN, Method.GET_TLS_KEY, Method.GET_QUOTE, Method.ATTEST})
    mine = Rule(methods=methods, paths=("shared/",))
    with served(socket_dir, rights=Rights(uids={os.getuid(): mine})) as keysock:
        yield keysock


def strongroom(keysock: Keysock, *words: str | Path, socket: str = "agent") -> int:
    return main(["key", *map(str, words), "--socket", str(keysock.path(socket))])


def key_of(keysock: Keysock, **fields: object) -> bytes:
    status, answer = call(keysock.path("agent"), "/v1/keys", fields)
    assert status == 200
    return unb64u(answer["key"], "key")


@pytest.mark.guarantee("G11")
def test_a_key_is_not_shown_unless_it_is_asked_for(keysock: Keysock, capsys: Captured) -> None:
    assert strongroom(keysock, "get", "shared/db") == 0
    shown = capsys.readouterr().out
    assert "32 bytes, not shown" in shown
    assert strongroom(keysock, "get", "shared/db", "--json") == 0
    told = capsys.readouterr().out
    assert json.loads(told) == {"path": "shared/db", "kind": "secret", "epoch": 3, "bytes": 32}
    key = key_of(keysock, path="shared/db")
    for form in (key.hex(), b64u(key)):
        assert form not in shown + told


def test_the_key_in_every_form(keysock: Keysock, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    key = key_of(keysock, path="shared/db", kind="p256", epoch=2)
    words = ("get", "shared/db", "--kind", "p256", "--epoch", "2", "--print")
    for form, want in (("raw", key), ("hex", key.hex().encode() + b"\n")):
        assert strongroom(keysock, *words, form) == 0
        assert capsysbinary.readouterr().out == want
    assert strongroom(keysock, *words, "base64", "--json") == 0
    assert len(json.loads(capsysbinary.readouterr().out)["key"]) == 44


@pytest.mark.guarantee("G11")
def test_a_key_for_a_new_file_of_its_own(keysock: Keysock, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "db.key"
    assert strongroom(keysock, "get", "--out", out) == 0
    assert out.read_bytes() == key_of(keysock)
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.read_bytes().hex() not in capsys.readouterr().out
    assert strongroom(keysock, "get", "--out", out) == 3
    assert "exists, want a new file" in capsys.readouterr().err
    assert out.read_bytes() == key_of(keysock)


def test_a_refused_key_leaves_no_file(keysock: Keysock, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "db.key"
    assert strongroom(keysock, "get", "other/db", "--out", out) == 6
    assert not out.exists()
    error = capsys.readouterr().err
    assert error.startswith(
        f"strongroom: {ME}: no rule has path 'other/db', want one in strongroom.keys.rules"
    )
    assert error.count("\n") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.guarantee("G11")
def test_a_terminal_shows_no_key_without_reveal(
    keysock: Keysock, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        assert strongroom(keysock, "get", "--print", "hex") == 3
        assert strongroom(keysock, "get", "--print", "hex", "--json") == 3
        assert screen.getvalue() == ""
        assert strongroom(keysock, "get", "--print", "hex", "--json", "--reveal") == 0
    assert key_of(keysock).hex() in screen.getvalue()
    assert capsys.readouterr().err.count("want --reveal to show a key there") == 2


def test_the_key_of_dstacks_sdk(keysock: Keysock, capsys: Captured) -> None:
    status, answer = call(keysock.path("dstack"), "/GetKey", {"path": "shared/x", "purpose": "p"})
    assert status == 200
    words = ("get", "shared/x", "--dstack", "--purpose", "p", "--print", "hex")
    assert strongroom(keysock, *words, socket="dstack") == 0
    assert capsys.readouterr().out.strip() == answer["key"]
    assert strongroom(keysock, *words, "--json", socket="dstack") == 0
    assert json.loads(capsys.readouterr().out)["signature_chain"] == answer["signature_chain"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--dstack", "--kind", "p256", "x"), "neither kinds nor epochs"),
        (("--dstack", "--epoch", "1", "x"), "neither kinds nor epochs"),
        (("--dstack",), "want one"),
        (("--purpose", "x"), "want --dstack"),
        (("--algorithm", "ed25519"), "want --dstack"),
        (("--print", "raw", "--json"), "raw is no JSON"),
    ],
)
def test_options_that_do_not_go_together(
    keysock: Keysock, capsys: Captured, words: tuple[str, ...], why: str
) -> None:
    assert strongroom(keysock, "get", *words) == 3
    assert why in capsys.readouterr().err


def test_an_epoch_there_is_not_yet(keysock: Keysock, capsys: Captured) -> None:
    assert strongroom(keysock, "get", "--epoch", "4") == 4
    assert "epoch: got 4, want 1..3" in capsys.readouterr().err


def test_a_signature_checks_with_the_public_half(keysock: Keysock, tmp_path: Path, capsys: Captured) -> None:
    document, public, signature = (tmp_path / name for name in ("document", "id.pem", "signature"))
    document.write_bytes(b"what is signed")
    assert strongroom(keysock, "public", "--path", f"{ME}/id", "--out", public) == 0
    assert strongroom(keysock, "sign", document, "--path", f"{ME}/id", "--out", signature) == 0
    assert capsys.readouterr().out == ""
    key = load_pem_public_key(public.read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    key.verify(signature.read_bytes(), b"what is signed")
    assert strongroom(keysock, "sign", document, "--path", f"{ME}/id") == 0
    assert capsys.readouterr().out.strip() == signature.read_bytes().hex()
    assert strongroom(keysock, "public", "--path", f"{ME}/id", "--json") == 0
    assert json.loads(capsys.readouterr().out)["pem"] == public.read_text()


def test_standard_input_is_signed(
    keysock: Keysock, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"data")))
    assert strongroom(keysock, "sign", "-", "--kind", "secp256k1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "secp256k1"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes((4 << 20) + 1))))
    assert strongroom(keysock, "sign", "-") == 4
    assert "want its hash signed instead" in capsys.readouterr().err


def test_a_certificate_and_its_key(keysock: Keysock, tmp_path: Path, capsys: Captured) -> None:
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    words = ("certificate", "--key-out", key, "--chain-out", chain, "--name", "api.example", "--evidence")
    assert strongroom(keysock, *words) == 0
    leaf, authority = x509.load_pem_x509_certificates(chain.read_bytes())
    assert leaf.public_key() == load_pem_private_key(key.read_bytes(), None).public_key()
    leaf.verify_directly_issued_by(authority)
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text() not in capsys.readouterr().out
    assert strongroom(keysock, *words) == 3
    assert strongroom(keysock, *words[:1], "--key-out", tmp_path / "k", *words[3:], "--days", "398") == 3
    assert not (tmp_path / "k").exists()


def test_without_a_socket(socket_dir: Path, capsys: Captured) -> None:
    assert main(["key", "get", "--socket", str(socket_dir / "none")]) == 9
    assert "want a program inside a strongroom machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["get"], b"{}"),
        (["get"], b'{"key":1}'),
        (["get"], b'{"key":"!"}'),
        (["get", "x", "--dstack"], b'{"key":"0"}'),
        (["public"], b'{"public_key":"AAAA"}'),
        (["public"], b"{}"),
        (["sign", __file__], b"{}"),
        (["certificate", "--key-out", "k", "--chain-out", "c"], b'{"key":"x","chain":"y","not_after":1}'),
    ],
)
@pytest.mark.guarantee("G16")
def test_an_answer_that_is_none(
    socket_dir: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, words: list[str], body: bytes
) -> None:
    monkeypatch.chdir(socket_dir)
    path = socket_dir / "a.sock"
    with answering(path, reply(body)):
        assert main(["key", *words, "--socket", str(path)]) in (4, 7)
    assert capsys.readouterr().err.count("\n") == 1
    assert not (socket_dir / "k").exists()
