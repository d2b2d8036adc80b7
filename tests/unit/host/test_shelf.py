"""Mirrors host/shelf.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.host.shelf import MAX_PAYLOAD, Shelf
from tests.fakes.broker import URI


def policy(**change: Any) -> bytes:
    value = {"version": 1, "measurements": [{"name": "m", "value": "00" * 48}], "host_data": "any"}
    return json.dumps(value | change).encode()  # JSON is YAML


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path / "broker")
    made.create()
    return made


def folder(shelf: Shelf) -> Path:
    return shelf.directory / "resources/default/model/llama"


def test_what_is_put_is_there(shelf: Shelf) -> None:
    shelf.put(URI, b"secret", policy())
    resource = shelf.take(URI)
    assert resource is not None and resource.payload == b"secret"
    assert resource.policy.measurements[0].name == "m"
    assert b"secret" not in repr(resource).encode()
    assert list(shelf.uris()) == [URI]
    assert len(list(shelf.policies())) == 1


def test_files_are_closed_to_others(shelf: Shelf) -> None:
    shelf.put(URI, b"secret", policy())
    modes = {path.name: path.stat().st_mode & 0o777 for path in shelf.directory.rglob("*")}
    assert {mode for name, mode in modes.items() if name in ("payload", "policy.yaml")} == {0o600}
    assert {mode for name, mode in modes.items() if "." not in name and name != "payload"} == {0o700}


def test_what_is_put_again_replaces(shelf: Shelf) -> None:
    shelf.put(URI, b"first", policy())
    shelf.put(URI, b"second", policy(vmpl=[1]))
    resource = shelf.take(URI)
    assert resource is not None and (resource.payload, resource.policy.vmpl) == (b"second", (1,))
    assert sorted(path.name for path in folder(shelf).iterdir()) == ["payload", "policy.yaml"]


def test_a_new_payload_is_never_beside_an_old_policy(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that dies half way leaves no resource, rather than a secret under the wrong policy."""
    shelf.put(URI, b"first", policy())

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(MachineError, match="kbs:///default/model/llama: no space"):
        shelf.put(URI, b"second", policy(vmpl=[1]))
    assert shelf.take(URI) is None


def test_what_is_not_there_is_none(shelf: Shelf) -> None:
    assert shelf.take(URI) is None
    shelf.put(URI, b"secret", policy())
    assert shelf.take(ResourceURI.parse("kbs:///default/model/other")) is None
    assert shelf.take(ResourceURI.parse("kbs:///default/other/llama")) is None


@pytest.mark.parametrize("size", [0, MAX_PAYLOAD + 1])
def test_a_payload_has_its_bounds(shelf: Shelf, size: int) -> None:
    with pytest.raises(FormatError, match=f"got {size} bytes, want 1..{MAX_PAYLOAD}"):
        shelf.put(URI, bytes(size), policy())
    assert shelf.take(URI) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"measurements": []}, "measurements: empty"),
        ({"allow_debug": True}, "a debug guest is never accepted"),
        ({"mesurements": []}, "mesurements: unknown key"),
        ({"model": {"minimum_epoch": 1}}, "model: evidence for a key says nothing of it yet"),
        ({"engine": {"versions": ["1"]}}, "engine: evidence for a key says nothing of it yet"),
        ({"gpus": 1}, "gpus: evidence for a key says nothing of it yet"),
    ],
)
def test_a_policy_that_cannot_hold_is_refused(shelf: Shelf, change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=f"policy of kbs:///default/model/llama.*{why}"):
        shelf.put(URI, b"secret", policy(**change))
    assert shelf.take(URI) is None


def test_a_policy_broken_later_guards_by_being_broken(shelf: Shelf) -> None:
    shelf.put(URI, b"secret", policy())
    (folder(shelf) / "policy.yaml").write_text("version: 2")
    with pytest.raises(ConfigError, match="policy of kbs:///default/model/llama"):
        shelf.take(URI)
    assert list(shelf.policies()) == []
    (folder(shelf) / "policy.yaml").unlink()
    with pytest.raises(ConfigError, match="no such file"):
        shelf.take(URI)


@pytest.mark.parametrize("name", ["payload", "policy.yaml"])
def test_links_are_not_followed(shelf: Shelf, tmp_path: Path, name: str) -> None:
    shelf.put(URI, b"secret", policy())
    (tmp_path / "elsewhere").write_bytes((folder(shelf) / name).read_bytes())
    (folder(shelf) / name).unlink()
    (folder(shelf) / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises((ConfigError, MachineError), match="symbolic links"):
        shelf.take(URI)


def test_a_linked_folder_is_not_followed(shelf: Shelf) -> None:
    shelf.put(URI, b"secret", policy())
    (folder(shelf).parent / "alias").symlink_to(folder(shelf))
    with pytest.raises(MachineError, match="kbs:///default/model/alias: "):
        shelf.take(ResourceURI.parse("kbs:///default/model/alias"))
