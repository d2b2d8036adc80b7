"""Mirrors cli/broker.py and what it is made of: certificates, endpoints, what is printed."""

import json
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.cli import broker_target
from strongroom.cli.broker_certificate import read_certificate, write_certificate
from strongroom.cli.broker_endpoint import Endpoint
from strongroom.cli.main import main
from strongroom.errors import ConfigError
from strongroom.host.brokerage.house import House
from strongroom.wire.canonical import b64u
from tests.fakes.broker import URI, VOLUME
from tests.fakes.house import SIGNER, SIGNER_KEY

POLICY = 'version: 1\nmeasurements: [{name: m, value: "%s"}]\nhost_data: any\n' % ("00" * 48)


@pytest.fixture
def directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["broker", "init", str(tmp_path / "b"), "--name", "broker.example", "192.0.2.1"]) == 0
    capsys.readouterr()
    return tmp_path / "b"


def test_init_makes_a_broker(directory: Path) -> None:
    assert (directory / "tls.key").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    certificate = x509.load_pem_x509_certificate((directory / "tls.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]


def test_init_says_what_guests_have_to_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["broker", "init", str(tmp_path / "b"), "--name", "::1"]) == 0
    spki = read_certificate(tmp_path / "b" / "tls.crt").spki_sha256.hex()
    out = capsys.readouterr().out
    assert f'broker: {{url: "https://[::1]:8443", spki_sha256: "{spki}"}}' in out
    assert main(["broker", "init", str(tmp_path / "c"), "--name", "a.example", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["ca"] == (tmp_path / "c" / "tls.crt").read_text()


def test_init_never_replaces_a_key(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = (directory / "tls.key").read_bytes()
    assert main(["broker", "init", str(directory), "--name", "a"]) == 3
    assert "tls.key: exists already" in capsys.readouterr().err
    assert (directory / "tls.key").read_bytes() == key


@pytest.mark.parametrize(
    "name", ["", "a b", "-a", "a-", "a..b", "*.example", "x" * 64, "https://a", "192.0.2.1:8443"]
)
def test_a_name_is_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--name: got"):
        write_certificate(tmp_path, [name], days=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0, 3651])
def test_a_certificate_s_life_is_bounded(tmp_path: Path, days: int) -> None:
    with pytest.raises(ConfigError, match="--days: got"):
        write_certificate(tmp_path, ["a"], days=days)


def put(directory: Path, tmp_path: Path, payload: bytes, policy: str = POLICY, uri: str = str(URI)) -> int:
    (tmp_path / "payload").write_bytes(payload)
    (tmp_path / "policy.yaml").write_text(policy)
    arguments = ["broker", "put", str(directory), uri, str(tmp_path / "payload")]
    return main([*arguments, "--policy", str(tmp_path / "policy.yaml")])


@pytest.mark.guarantee("G11")
def test_put_keeps_a_key_and_does_not_show_it(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert put(directory, tmp_path, VOLUME.pack()) == 0
    said, head = capsys.readouterr().out.splitlines()
    assert said == f"{URI}: version 1, key kept for the sealed model of root {VOLUME.root.hex()}, epoch 3"
    with House(directory) as house:
        resource = house.rules().resources[URI]
        assert house.secret(URI, resource.versions[0]) == VOLUME.pack()
        assert head == f"audit head {house.verify_audit()}"


def test_put_keeps_any_bytes(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert put(directory, tmp_path, b"a password") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{URI}: version 1, 10 bytes kept"


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        ({"policy": "version: 1"}, 3, "missing"),
        ({"policy": "version: 1\nallow: everything"}, 3, "allow: unknown key"),
        ({"policy": "- a\n"}, 3, "want a mapping"),
        ({"payload": b""}, 4, "got 0 bytes, want 1.."),
        ({"payload": bytes(65537)}, 4, "longer than 65536 bytes"),
        ({"uri": "kbs:///a/b"}, 4, "got 2 parts, want 3"),
        ({"uri": "../../etc"}, 4, "want kbs:///repository/type/tag"),
    ],
)
def test_put_refuses_in_one_line(
    directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    code: int,
    why: str,
) -> None:
    arguments = {"payload": b"x"} | change
    assert put(directory, tmp_path, **arguments) == code  # type: ignore[arg-type]
    err = capsys.readouterr().err
    assert why in err and err.count("\n") == 1
    with House(directory) as house:
        assert house.rules().resources == {}


def test_put_wants_a_broker_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert put(tmp_path, tmp_path, b"x") == 3
    assert "not a broker directory" in capsys.readouterr().err


def test_put_names_a_file_that_is_not_there(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["broker", "put", str(directory), str(URI), "/nonexistent", "--policy", "/nonexistent"]) == 8
    assert "/nonexistent: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:8443", "::1", 8443),
        ("broker.example:443", "broker.example", 443),
    ],
)
def test_where_to_listen(directory: Path, listen: str, host: str, port: int) -> None:
    endpoint = Endpoint.parse(
        listen, certificate=directory / "tls.crt", key=directory / "tls.key", plain=False
    )
    assert (endpoint.host, endpoint.port) == (host, port)
    assert endpoint.context is not None and endpoint.context.minimum_version == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    "listen", ["", "8443", "host:", ":8443", "::1:8443", "host:65536", "host:x", "a b:1"]
)
def test_where_not_to_listen(directory: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match="--listen: got"):
        Endpoint.parse(listen, certificate=directory / "tls.crt", key=directory / "tls.key", plain=False)


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "192.0.2.1:8080", "[::]:8080", "localhost:8080"])
def test_plain_http_stays_on_this_machine(directory: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match="want a loopback address"):
        Endpoint.parse(listen, certificate=directory, key=directory, plain=True)
    assert Endpoint.parse("127.0.0.1:1", certificate=directory, key=directory, plain=True).context is None


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_serve_names_tls_files_it_cannot_use(
    directory: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    (directory / missing).write_text("not pem")
    assert main(["broker", "serve", str(directory), "--listen", "127.0.0.1:0"]) == 3
    assert "not a PEM certificate with its key" in capsys.readouterr().err
    (directory / missing).unlink()
    assert main(["broker", "serve", str(directory), "--listen", "127.0.0.1:0"]) == 3
    assert "no such file" in capsys.readouterr().err


def line(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command that succeeds prints."""
    assert main(["broker", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_a_key_for_administrators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = line(capsys, "key", tmp_path / "ann.key")
    public = out.split()[-1]
    assert (tmp_path / "ann.key").stat().st_mode & 0o777 == 0o600
    assert main(["broker", "key", str(tmp_path / "ann.key")]) == 8  # never over another
    assert "exists" in capsys.readouterr().err
    line(capsys, "init", tmp_path / "b", "--name", "a", "--admin", f"ann={public}")
    assert public in line(capsys, "admin", "list", tmp_path / "b")
    line(capsys, "admin", "add", tmp_path / "b", "eve", SIGNER_KEY, "--role", "auditor")
    assert "auditor" in line(capsys, "admin", "list", tmp_path / "b")
    line(capsys, "admin", "remove", tmp_path / "b", "ann")
    assert public not in line(capsys, "admin", "list", tmp_path / "b")


def test_a_key_is_never_taken_for_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = (Ed25519PrivateKey.from_private_bytes(n.to_bytes(32, "big")) for n in range(1, 10_000))
    keys = [key for key in made if b64u(broker_target.public_bytes(key)).startswith("-")]
    keys = [*keys[:3], SIGNER]

    class Generating(Ed25519PrivateKey):
        @classmethod
        def generate(cls) -> Ed25519PrivateKey:
            return keys.pop(0)

    monkeypatch.setattr(broker_target, "Ed25519PrivateKey", Generating)
    assert b64u(broker_target.write_key(tmp_path / "k")) == SIGNER_KEY


def test_a_life_of_a_resource(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(directory, tmp_path, b"first")
    put(directory, tmp_path, b"second")
    capsys.readouterr()
    assert "version 3, epoch 3" in line(capsys, "rotate", directory, URI, "--random", 32)
    shown = line(capsys, "list", directory).splitlines()
    assert shown[1].split()[:4] == [str(URI), "1,2,3", "3", "3"]
    assert line(capsys, "policy", directory, URI) == POLICY
    (tmp_path / "other.yaml").write_text(POLICY + "vmpl: [1]\n")
    line(capsys, "policy", directory, URI, "--set", tmp_path / "other.yaml")
    assert line(capsys, "get-policy", directory, URI).endswith("vmpl: [1]\n")
    line(capsys, "revoke", directory, URI, "--epoch", 3, "--reason", "leaked")
    assert f"revoked  {URI} epoch 3 and older  leaked" in line(capsys, "list", directory)
    assert json.loads(line(capsys, "list", directory, "--json"))["resources"][0]["current"] is None
    line(capsys, "revoke", directory, URI, "--epoch", 3, "--reason", "it was not", "--undo")
    line(capsys, "revoke", directory, "--measurement", "ab" * 48, "--reason", "advisory")
    line(capsys, "delete", directory, URI, "--version", 1)
    assert "versions 2, 3" in line(capsys, "delete", directory, URI)
    assert "audit verified, 10:" in line(capsys, "audit", directory, "--verify")


def test_a_new_root_key(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(directory, tmp_path, VOLUME.pack())
    before = (directory / "root.key").read_bytes()
    capsys.readouterr()
    assert "sealed under the new root key" in line(capsys, "rotate", directory, "--root-key")
    assert (directory / "root.key").read_bytes() != before
    with House(directory) as house:
        assert house.secret(URI, house.rules().resources[URI].versions[0]) == VOLUME.pack()


def test_reference_values_from_a_build_to_a_policy(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signer = line(capsys, "key", tmp_path / "build.key").split()[-1]
    value = {
        "version": "strongroom/reference-values/v1",
        "name": "my-image",
        "serial": 1,
        "measurements": [{"kind": "snp", "name": "4 vcpus", "value": "ab" * 48}],
    }
    (tmp_path / "values.json").write_text(json.dumps(value, indent=2))
    signed = tmp_path / "values.signed"
    line(
        capsys,
        "reference",
        "sign",
        tmp_path / "values.json",
        "--key",
        tmp_path / "build.key",
        "--out",
        signed,
    )
    out = line(capsys, "reference", "import", directory, signed, "--signer", signer)
    assert out.startswith("my-image: 1 measurements, serial 1\n")
    assert signer in line(capsys, "reference", "list", directory)
    rules = "version: 1\nreference_values: [my-image]\nhost_data: any\n"
    assert put(directory, tmp_path, b"x", rules) == 0
    line(capsys, "reference", "delete", directory, "my-image")


def test_the_log_is_printed_kept_and_checked(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        put(directory, tmp_path, b"%d" % n)
    capsys.readouterr()
    head = line(capsys, "audit", directory, "--verify").split()[-1]
    text = line(capsys, "audit", directory)
    assert [json.loads(one)["n"] for one in text.splitlines()] == [1, 2, 3, 4]
    assert line(capsys, "audit", directory, "--first", 4) == text.splitlines(keepends=True)[3]
    kept = tmp_path / "kept.log"
    kept.write_text(text)
    assert line(capsys, "audit", kept, "--head", head).split()[-1] == head
    kept.write_text("".join(text.splitlines(keepends=True)[:-1]))
    assert main(["broker", "audit", str(kept), "--verify"]) == 0  # shorter, and whole as far as it goes
    assert main(["broker", "audit", str(kept), "--head", head]) == 5
    kept.write_text(text.replace("version 2", "version 9"))
    assert main(["broker", "audit", str(kept), "--verify"]) == 5
    kept.write_text(text[:-1])
    assert main(["broker", "audit", str(kept), "--verify"]) == 4
    assert "line 4 is not finished" in capsys.readouterr().err


def test_a_directory_of_an_older_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "resources/a/b/c").mkdir(parents=True)
    (tmp_path / "resources/a/b/c/payload").write_bytes(b"x")
    for words in (["serve", str(tmp_path)], ["list", str(tmp_path)]):
        assert main(["broker", *words]) == 3
        err = capsys.readouterr().err
        assert (
            "holds 1 resources as files" in err and "strongroom broker init" in err and err.count("\n") == 1
        )


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["list", "https://127.0.0.1:1"], 3, "want --key FILE"),
        (["list", "https://127.0.0.1:1", "--key", "K"], 3, "want --spki HEX or --ca FILE"),
        (["list", "https://127.0.0.1:1", "--key", "K", "--spki", "zz"], 3, "--spki: want 64 hex digits"),
        (["list", "http://127.0.0.1:1", "--key", "K", "--spki", "00" * 32], 3, "https"),
        (["list", "https://127.0.0.1:1", "--key", "K", "--spki", "00" * 32], 9, "127.0.0.1:1"),
        (["rotate", "https://127.0.0.1:1", "--root-key"], 3, "want the broker's directory"),
        (["rotate", "B"], 3, "want a resource, or --root-key"),
        (["revoke", "B"], 2, "--reason"),
        (["serve", "B", "--listen", "127.0.0.1:0", "--rate", "0"], 3, "--rate: got 0"),
        (["serve", "B", "--listen", "systemd"], 3, "--listen systemd: got no sockets"),
        (["serve", "B", "--metrics", "x"], 3, "got 'x', want HOST:PORT"),
        (
            ["init", "C", "--name", "a", "--root-key", "kms:x"],
            3,
            "want file:NAME, credential:NAME or tpm:PCRS",
        ),
        (["init", "C", "--name", "a", "--admin", "ann"], 3, "want NAME=KEY"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, why: str
) -> None:
    line(capsys, "key", tmp_path / "k")
    known = {"K": str(tmp_path / "k"), "B": str(directory), "C": str(tmp_path / "c")}
    assert main(["broker", *(known.get(word, word) for word in words)]) == code
    err = capsys.readouterr().err
    assert why in err and err.count("\n") == 1


def test_a_key_that_others_may_read_signs_nothing(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line(capsys, "key", tmp_path / "k")
    (tmp_path / "k").chmod(0o644)
    words = ["list", "https://127.0.0.1:1", "--key", str(tmp_path / "k"), "--spki", "00" * 32]
    assert main(["broker", *words]) == 3
    assert "mode is 644, want 600" in capsys.readouterr().err


def test_init_that_fails_leaves_no_identity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/root.key").write_bytes(bytes(32))
    assert main(["broker", "init", str(tmp_path / "b"), "--name", "a"]) == 3
    assert "a key of file:root.key exists already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["root.key"]
    (tmp_path / "b/root.key").unlink()
    assert main(["broker", "init", str(tmp_path / "b"), "--name", "a"]) == 0


def test_help_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["broker", "--help"], ["broker", "serve", "--help"]):
        assert main(words) == 0
    assert "--insecure-loopback" in capsys.readouterr().out
    assert main(["broker"]) == 2
