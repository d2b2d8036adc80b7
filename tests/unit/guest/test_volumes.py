"""Mirrors guest/volumes.py, through guest/config.py: what the section may say, and one line for everything else."""

from typing import Any

import pytest

from guest.config import Config
from strongroom.errors import ConfigError
from tests.unit.guest.test_config import good, pushed, read, text


def one(**changes: Any) -> dict[str, Any]:
    volume = {"name": "state", "source": "/srv/state.enc", "key": "kbs:///default/volumes/state", **changes}
    return {key: value for key, value in volume.items() if value is not None}


def other(**changes: Any) -> dict[str, Any]:
    return one(**{"name": "data", "source": "/srv/data.enc", "key": "kbs:///default/volumes/data", **changes})


def parsed(volumes: object, **changes: Any) -> Config:
    return read(text({**good(), "volumes": volumes, **changes}))


def test_every_setting_is_read() -> None:
    state, data = parsed([one(), other(read_only=True, side="/srv/data.side")]).volumes
    assert (state.source, state.read_only, state.side) == ("/srv/state.enc", False, None)
    assert (state.unit, state.mount) == ("strongroom-live@state.service", "/run/strongroom/volumes/state")
    assert (data.key, data.read_only, data.side) == ("kbs:///default/volumes/data", True, "/srv/data.side")


def test_there_are_none_unless_named() -> None:
    assert read(text(good())).volumes == parsed([]).volumes == ()


def test_their_keys_are_this_machines_own() -> None:
    keys = {"root": "broker", "resource": "kbs:///default/keys/root"}
    assert parsed([one()], keys=keys).own_keys == (
        "kbs:///default/model/tiny", "kbs:///default/keys/root", "kbs:///default/volumes/state",
    )  # fmt: skip


def test_a_volume_asks_for_a_broker_even_where_the_model_does_not() -> None:
    with pytest.raises(ConfigError, match=r"strongroom\.broker: missing"):
        read(text({**pushed(), "volumes": [one()]}))
    assert read(text({**pushed(), "broker": good()["broker"], "volumes": [one()]})).broker is not None
    with pytest.raises(ConfigError, match=r"strongroom\.broker: got one, want none"):
        read(text({**pushed(), "broker": good()["broker"], "volumes": []}))


NAMES = (
    "", ".", "..", "a/b", "../a", "a.b", "-a", "a-", "A", "a b", "a\n", "a_b", "a@b", "a%i", "*", "ä", "a" * 33,
    1, None,
)  # fmt: skip
SOURCES = (
    "", "/", "/srv", "/srv/", "srv/a", "/etc", "/srv/../etc", "/srv/a/..", "/srv/./a", "/srv//a", "/srv/a/",
    "/srv/.hidden", "/srv/a\0", "/srv/a\n", "/run/strongroom/volumes/state", "/srv/a b", 1, ["/srv/a"],
)  # fmt: skip


@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_is_a_short_word(name: object) -> None:
    volume = {**one(), "name": name}
    with pytest.raises(ConfigError, match=r"strongroom\.volumes\[1\]\.name: got .*, want 1\.\.32 lowercase"):
        parsed([other(), volume])


@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("member", ["source", "side"])
@pytest.mark.parametrize("path", SOURCES, ids=repr)
def test_a_path_leads_below_srv_and_nowhere_else(member: str, path: object) -> None:
    with pytest.raises(
        ConfigError, match=rf"strongroom\.volumes\[0\]\.{member}: got .*, want a path below /srv"
    ):
        parsed([{**one(read_only=True), member: path}])


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("volumes", "why"),
    [
        (None, r"volumes: got None, want a list of at most 16"),
        ({"state": {}}, r"volumes: got dict, want a list"),
        (["state"], r"volumes\[0\]: got 'state', want a mapping"),
        ([{}], r"volumes\[0\]\.name: missing"),
        ([one(source=None)], r"volumes\[0\]\.source: missing"),
        ([one(key=None)], r"volumes\[0\]\.key: missing"),
        ([one(key="kbs:///default/volumes")], r"volumes\[0\]\.key: got"),
        ([one(key="ephemeral")], r"volumes\[0\]\.key: got 'ephemeral'"),
        ([one(read_only="yes")], r"volumes\[0\]\.read_only: got 'yes', want true or false"),
        ([one(mount="/etc")], r"volumes\[0\]\.mount: unknown key"),
        ([one(uid=0)], r"volumes\[0\]\.uid: unknown key"),
        ([one(side="/srv/side")], r"volumes\[0\]\.side: got one, want it with read_only: true"),
        ([one(), other(name="state")], r"volumes: name state appears twice"),
        ([one(), other(key=one()["key"])], r"volumes: key kbs:///default/volumes/state appears twice"),
        (
            [one(), other(source="/srv/state.enc")],
            r"volumes\[1\]\.source: .*: strongroom\.volumes\[0\]\.source is /srv/state",
        ),
        ([one(), other(source="/srv/state.enc/in")], r"volumes\[1\]\.source: .*, want none inside another"),
        ([one(source="/srv/a/b"), other(source="/srv/a")], r"volumes\[1\]\.source: .*, want none inside"),
        ([one(source="/srv/model")], r"volumes\[0\]\.source: .* strongroom\.model\.source is /srv/model"),
        ([one(source="/srv/model/objects")], r"volumes\[0\]\.source: .*, want none inside another"),
        ([one(key="kbs:///default/model/tiny")], r"strongroom: key kbs:///default/model/tiny appears twice"),
        ([one(name=f"v{n}") for n in range(17)], r"volumes: got list, want a list of at most 16"),
    ],
)
def test_what_else_is_refused_names_its_place(volumes: object, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        parsed(volumes)
    assert "\n" not in str(caught.value)


def test_directories_with_a_common_beginning_are_not_inside_each_other() -> None:
    assert len(parsed([one(source="/srv/a"), other(source="/srv/ab")]).volumes) == 2


def test_a_pushed_model_is_nobodys_volume() -> None:
    raw = {**pushed(), "broker": good()["broker"], "volumes": [one(source="/srv/pushed")]}
    with pytest.raises(ConfigError, match=r"model\.source is /srv/pushed/model"):
        read(text(raw))
