"""Every reader of foreign bytes, for a bounded time: own mutations always, atheris where it is installed."""

import importlib.util
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.host.run import run
from tests import ROOT
from tests.fuzz.mutator import mutations
from tests.fuzz.targets import TARGETS

MUTATIONS = 150
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_refused_by_an_error_of_ours(name: str) -> None:
    target = TARGETS[name]
    for data in mutations(target.seeds(), MUTATIONS, seed=len(name)):
        target.try_one(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=2048))
def test_anything_at_all_is_refused_by_an_error_of_ours(name: str, data: bytes) -> None:
    TARGETS[name].try_one(data)


def test_the_mutator_repeats_itself_and_stays_small() -> None:
    seeds = [b'{"a": 1, "b": "x"}', bytes(300)]
    first = list(mutations(seeds, 300, seed=1))
    assert first == list(mutations(seeds, 300, seed=1)) and first != list(mutations(seeds, 300, seed=2))
    assert len(set(first)) > 150 and max(map(len, first)) <= 1 << 17
    assert any(data.count(b'"a": 1') > 1 for data in first)  # a doubled key


@pytest.mark.slow
@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris is not installed")
@pytest.mark.parametrize("name", TARGETS)
def test_led_by_coverage(name: str) -> None:
    done = run(
        [sys.executable, "-m", "tests.fuzz", name, "--seconds", "1"], cwd=ROOT, timeout=120, check=False
    )
    assert done.status == 0, done.stderr.decode(errors="replace")[-2000:]
    assert b"number_of_executed_units" in done.stderr


def test_the_runner_without_atheris() -> None:
    blocked = (
        "import sys; sys.modules['atheris'] = None; from tests.fuzz.__main__ import main; sys.exit(main())"
    )
    done = run([sys.executable, "-c", blocked, "snp-report", "--seconds", "1"], cwd=ROOT, timeout=60)
    assert done.stdout.startswith(b"snp-report: ") and b"no defect" in done.stdout
