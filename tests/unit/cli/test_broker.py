"""Mirrors cli/broker.py and what it is made of: certificates, endpoints, what is printed."""

import json
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from strongroom.cli.broker_certificate import read_certificate, write_certificate
from strongroom.cli.broker_server import Endpoint
from strongroom.cli.main import main
from strongroom.errors import ConfigError
from strongroom.host.shelf import Shelf
from tests.fakes.broker import URI, VOLUME

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
    out = capsys.readouterr().out
    assert out == f"{URI}: key kept for the sealed model of root {VOLUME.root.hex()}, epoch 3\n"
    resource = Shelf(directory).take(URI)
    assert resource is not None and resource.payload == VOLUME.pack()


def test_put_keeps_any_bytes(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert put(directory, tmp_path, b"a password") == 0
    assert capsys.readouterr().out == f"{URI}: 10 bytes kept\n"


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
    assert list(Shelf(directory).uris()) == []


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


def test_help_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["broker", "--help"], ["broker", "serve", "--help"]):
        assert main(words) == 0
    assert "--insecure-loopback" in capsys.readouterr().out
    assert main(["broker"]) == 2
