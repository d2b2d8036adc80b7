"""Mirrors guest/coco/userdata.py, through guest/config.py."""

from typing import Any, Final

import pytest
import yaml

from guest.coco.rules import Right
from guest.config import Config, parse
from guest.userdata import Userdata
from strongroom.errors import ConfigError
from tests.unit.guest.test_config import good

POINT: Final = {
    "x": "QT3_slJmispaOwnAo6hxebXGLRuiveFuRCLpS4j4S4k",
    "y": "jcDn4N4nRBQ-a7_D3qjqtb6hwOAXh_ve1wvibPSi1G0",
}


def read(coco: object) -> Config:
    text = yaml.safe_dump({"strongroom": {**good(), "coco": coco}})
    return parse(Userdata.of(b"#cloud-config\n" + text.encode()))


def whole() -> dict[str, Any]:
    return {
        "port": 8006,
        "eventlog": True,
        "rules": [
            {"unit": "api.service", "resources": ["default/db/"], "allow": ["evidence", "aael"]},
            {"uid": 1000, "resources": ["default/app/key", "*"]},
        ],
        "signers": [{"kid": "kbs:///default/signer/key", **POINT}],
    }


def test_every_setting_is_read() -> None:
    coco = read(whole()).coco
    assert coco is not None and coco.eventlog and coco.plan.port == 8006
    rules = coco.plan.rules
    assert rules.units["api.service"].resources == ("default/db/",)
    assert rules.units["api.service"].allow == {Right.EVIDENCE, Right.AAEL}
    assert rules.uids[1000].resources == ("default/app/key", "*") and not rules.uids[1000].allow
    assert coco.plan.signers.keys() == {"kbs:///default/signer/key"}


def test_it_is_off_unless_asked_for_and_nobody_has_anything_unless_named() -> None:
    assert (
        parse(Userdata.of(b"#cloud-config\n" + yaml.safe_dump({"strongroom": good()}).encode())).coco is None
    )
    coco = read({"rules": []}).coco
    assert coco is not None and coco.plan.port is None and not coco.eventlog
    assert not coco.plan.signers and not list(coco.plan.rules)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rules": None}, r"strongroom\.coco\.rules: got None, want a list of at most 64"),
        ({"port": 80}, r"coco\.port: got 80, want a whole number 1024\.\.65535"),
        ({"port": None}, "coco.port: got None"),
        ({"host": "0.0.0.0"}, "coco.host: unknown key"),
        ({"eventlog": 1}, "coco.eventlog: got 1, want true or false"),
        ({"rules": [{}]}, r"coco\.rules\[0\]\.unit: want exactly one of unit and uid"),
        ({"rules": [{"uid": 1, "unit": "a.service"}]}, "want exactly one of unit and uid"),
        ({"rules": [{"uid": 1}, {"uid": 1}]}, "uid 1 appears twice"),
        ({"rules": [{"unit": "a"}]}, "the full name of a service unit"),
        ({"rules": [{"uid": 1, "paths": []}]}, "paths: unknown key"),
        (
            {"rules": [{"uid": 1, "allow": ["all"]}]},
            r"allow\[0\]: got 'all', want one of token, evidence, raw_evidence, aael",
        ),
        ({"rules": [{"uid": 1, "resources": ["kbs:///a/b/c"]}]}, r"resources\[0\]: got 'kbs:///a/b/c'"),
        ({"rules": [{"uid": 1, "resources": ["a"]}]}, r"resources\[0\]: got 'a', want REPOSITORY/TYPE/TAG"),
        ({"rules": [{"uid": 1, "resources": ["a/b"]}]}, r"resources\[0\]"),
        ({"rules": [{"uid": 1, "resources": ["a/b/c/"]}]}, r"resources\[0\]"),
        ({"rules": [{"uid": 1, "resources": ["a/*"]}]}, r"resources\[0\]"),
        ({"rules": [{"uid": 1, "resources": ["a/../c"]}]}, r"resources\[0\]"),
        ({"rules": [{"uid": 1, "resources": ["/"]}]}, r"resources\[0\]"),
        ({"signers": [{"kid": "a", **POINT}, {"kid": "a", **POINT}]}, r"coco\.signers: kid a appears twice"),
        ({"signers": [{"kid": "a b", **POINT}]}, r"signers\[0\]\.kid: got 'a b'"),
        ({"signers": [{"kid": "a", "x": POINT["x"]}]}, r"signers\[0\]\.y: missing"),
        ({"signers": [{"kid": "a", **POINT, "d": POINT["x"]}]}, r"signers\[0\]\.d: unknown key"),
        ({"signers": [{"kid": "a", **POINT, "x": POINT["y"]}]}, r"signers\[0\]: the point is not on P-256"),
        ({"signers": [{"kid": "a", **POINT, "x": "short"}]}, "43 characters of base64url"),
    ],
    ids=range(24),
)
def test_everything_else_is_refused_by_its_path(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        read({**whole(), **change})
