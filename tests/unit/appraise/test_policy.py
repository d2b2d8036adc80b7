"""Mirrors strongroom/appraise/policy.py."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Final

import pytest

from strongroom.appraise.policy import ModelRule, Policy, ReferenceValue
from strongroom.errors import ConfigError
from strongroom.verify.roots import PRODUCTION

SMALL: Final[dict[str, Any]] = {
    "version": 1,
    "measurements": [{"name": "image 1", "value": "ab" * 48}],
    "host_data": ["cd" * 32],
}
FULL: Final[dict[str, Any]] = SMALL | {
    "measurements": [
        {"name": "image 1", "value": "ab" * 48, "until": "2026-12-31"},
        {"name": "image 2", "value": "ac" * 48, "from": "2026-12-01"},
    ],
    "host_data": "any",
    "minimum_tcb": {"fmc": 1, "bootloader": 10, "tee": 0, "snp": 23, "microcode": 84},
    "products": ["Milan", "Turin"],
    "vmpl": [0, 1],
    "require_alias_check": False,
    "vlek_providers": ["CN=cloud"],
    "allow_debug": False,
    "insecure_simulated_roots": ["ef" * 32],
    "model": {"root": "12" * 32, "minimum_epoch": 3},
    "engine": {"versions": ["0.24.0"]},
    "gpus": 8,
}


def test_the_defaults_are_the_strict_ones() -> None:
    assert Policy.from_raw(SMALL) == Policy(
        measurements=(ReferenceValue(name="image 1", value=b"\xab" * 48),),
        host_data=frozenset({b"\xcd" * 32}),
        minimum_tcb={},
        products=("Genoa", "Turin"),
        vmpl=(0,),
        require_alias_check=True,
        vlek_providers=(),
        insecure_simulated_roots=frozenset(),
        model=None,
        engine_versions=None,
        gpus=0,
    )
    assert Policy.from_raw(SMALL).roots == PRODUCTION


def test_every_key_is_read() -> None:
    assert Policy.from_raw(FULL) == Policy(
        measurements=(
            ReferenceValue(name="image 1", value=b"\xab" * 48, last_day=date(2026, 12, 31)),
            ReferenceValue(name="image 2", value=b"\xac" * 48, first_day=date(2026, 12, 1)),
        ),
        host_data=None,
        minimum_tcb={"fmc": 1, "bootloader": 10, "tee": 0, "snp": 23, "microcode": 84},
        products=("Milan", "Turin"),
        vmpl=(0, 1),
        require_alias_check=False,
        vlek_providers=("CN=cloud",),
        insecure_simulated_roots=frozenset({b"\xef" * 32}),
        model=ModelRule(root=b"\x12" * 32, minimum_epoch=3),
        engine_versions=("0.24.0",),
        gpus=8,
    )
    assert Policy.from_raw(FULL).roots.insecure == {b"\xef" * 32}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mesurements": []}, "policy.mesurements: unknown key"),
        ({"version": 2}, "policy.version: got 2, want a whole number 0..1"),
        ({"version": 0}, "policy.version: got 0, want 1"),
        ({"version": True}, "policy.version: got True"),
        ({"measurements": []}, "policy.measurements: empty, want at least one"),
        ({"measurements": {}}, "policy.measurements: got a mapping, want a list"),
        ({"measurements": [{"name": "x"}]}, r"policy.measurements\[0\].value: missing"),
        (
            {"measurements": [{"name": "x", "value": "ab"}]},
            r"policy.measurements\[0\].value: got ab, want 96",
        ),
        (
            {"measurements": [{"name": "x", "value": "ab" * 48, "form": 1}]},
            r"measurements\[0\].form: unknown key",
        ),
        ({"host_data": []}, "policy.host_data: empty, want at least one"),
        ({"host_data": "some"}, "policy.host_data: got some, want a list"),
        ({"host_data": None}, "policy.host_data: got None, want a list"),
        ({"minimum_tcb": {}}, "policy.minimum_tcb: empty, want at least one of"),
        ({"minimum_tcb": {"ucode": 1}}, "policy.minimum_tcb.ucode: unknown key"),
        ({"minimum_tcb": {"snp": 256}}, "policy.minimum_tcb.snp: got 256"),
        ({"products": []}, "policy.products: empty"),
        ({"products": ["Naples"]}, r"policy.products\[0\]: got Naples, want one of Milan, Genoa, Turin"),
        ({"vmpl": []}, "policy.vmpl: empty"),
        ({"vmpl": [4]}, r"policy.vmpl\[0\]: got 4"),
        ({"allow_debug": True}, "policy.allow_debug: got true, want false: a debug guest is never accepted"),
        ({"insecure_simulated_roots": ["AB" * 32]}, "insecure_simulated_roots.*want 64 lowercase hex digits"),
        ({"model": {}}, "policy.model: empty, want at least one of root"),
        ({"model": {"epoch": 1}}, "policy.model.epoch: unknown key"),
        ({"engine": {}}, "policy.engine.versions: missing"),
        ({"engine": {"versions": []}}, "policy.engine.versions: empty"),
        ({"gpus": -1}, "policy.gpus: got -1"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Policy.from_raw(SMALL | change)


@pytest.mark.parametrize("key", ["version", "measurements", "host_data"])
def test_what_is_required_is_required(key: str) -> None:
    with pytest.raises(ConfigError, match=f"broker.policy.{key}: missing"):
        Policy.from_raw({name: value for name, value in SMALL.items() if name != key}, at="broker.policy")


def test_an_empty_policy_cannot_be_built_in_code_either() -> None:
    reference = ReferenceValue(name="x", value=bytes(48))
    empties: list[dict[str, Any]] = [
        {"measurements": ()},
        {"host_data": frozenset()},
        {"products": ()},
        {"engine_versions": ()},
    ]
    for empty in empties:
        with pytest.raises(ConfigError, match=f"policy.{next(iter(empty))}: empty, want at least one"):
            Policy(**{"measurements": (reference,), "host_data": None, **empty})


@pytest.mark.parametrize(
    ("moment", "names"),
    [
        (datetime(2026, 11, 30, 23, 59, tzinfo=UTC), ["image 1"]),
        (datetime(2026, 12, 1, tzinfo=UTC), ["image 1", "image 2"]),
        (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), ["image 1", "image 2"]),
        (datetime(2027, 1, 1, tzinfo=UTC), ["image 2"]),
        (datetime(2027, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))), ["image 1", "image 2"]),
    ],
)
def test_days_are_whole_utc_days(moment: datetime, names: list[str]) -> None:
    assert [reference.name for reference in Policy.from_raw(FULL).accepted_on(moment)] == names
