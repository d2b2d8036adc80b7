"""Mirrors guest/engine.py and guest/launch.py."""

import json
from pathlib import Path

import pytest

from guest import engine
from guest.config import parse
from guest.userdata import Userdata
from strongroom.errors import MachineError
from strongroom.host.run import run
from tests import ROOT
from tests.unit.guest.test_config import good, text

FORBIDDEN = {
    "--trust-remote-code",
    "--middleware",
    "--logits-processors",
    "--enable-lora",
    "--kv-transfer-config",
}


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    info = tmp_path / "lib/python3.11/site-packages/vllm-0.32.0+cpu.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    return tmp_path


@pytest.mark.guarantee("G3")
def test_flags_come_from_bounded_settings_only(venv: Path) -> None:
    plan = engine.plan(parse(Userdata.of(text(good()))), venv)
    assert plan.version == "0.32.0+cpu"
    assert not FORBIDDEN & set(plan.flags)
    assert plan.flags[plan.flags.index("--max-model-len") + 1] == "256"
    assert "--no-trust-remote-code" in plan.flags
    assert plan.claim()["flags"] == list(plan.flags)


@pytest.mark.guarantee("G14")
def test_nothing_that_logs_prompts_is_on(venv: Path) -> None:
    plan = engine.plan(parse(Userdata.of(text(good()))), venv)
    assert {"--no-enable-log-requests", "--no-enable-log-outputs", "--no-log-error-stack"} <= set(plan.flags)
    environment = dict(plan.environment)
    assert environment["VLLM_LOGGING_LEVEL"] == "INFO"
    assert "VLLM_DEBUG_LOG_API_SERVER_RESPONSE" not in environment


@pytest.mark.guarantee("G17")
def test_the_door_can_ask_what_the_engine_exposes(venv: Path) -> None:
    assert "--disable-fastapi-docs" not in engine.plan(parse(Userdata.of(text(good()))), venv).flags


@pytest.mark.guarantee("G10")
def test_an_engine_whose_numbers_are_none_ends(venv: Path) -> None:
    for settings in (good(), good() | {"gpus": 1}):
        plan = engine.plan(parse(Userdata.of(text(settings))), venv)
        assert dict(plan.environment)["VLLM_RAISE_ON_LOGIT_NANS"] == "1"


def test_the_hash_seed_is_new_each_time_and_not_measured(venv: Path) -> None:
    config = parse(Userdata.of(text(good())))
    plans = [engine.plan(config, venv) for _ in range(2)]
    assert plans[0].flags_sha256 == plans[1].flags_sha256
    assert dict(plans[0].environment)["PYTHONHASHSEED"] != dict(plans[1].environment)["PYTHONHASHSEED"]


def test_gpus_get_the_runner_that_is_right_under_confidential_computing(venv: Path) -> None:
    with_gpus = engine.plan(parse(Userdata.of(text(good() | {"gpus": 1}))), venv)
    assert dict(with_gpus.environment)["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    assert "--enforce-eager" not in with_gpus.flags
    without = engine.plan(parse(Userdata.of(text(good()))), venv)
    assert "VLLM_USE_V2_MODEL_RUNNER" not in dict(without.environment)
    assert dict(without.environment)["TORCHDYNAMO_DISABLE"] == "1"
    assert "TORCHDYNAMO_DISABLE" not in dict(with_gpus.environment)


def test_no_engine_or_two_are_refused(venv: Path) -> None:
    with pytest.raises(MachineError, match="found 0 vllm distributions"):
        engine.installed_version(venv / "elsewhere")
    second = venv / "lib/python3.11/site-packages/vllm-0.31.0.dist-info"
    second.mkdir()
    (second / "METADATA").write_text("Version: 0.31.0\n")
    with pytest.raises(MachineError, match="found 2 vllm distributions"):
        engine.installed_version(venv)


def test_launch_becomes_the_plan_with_an_empty_environment(tmp_path: Path) -> None:
    (tmp_path / "stale.sock").write_text("")
    plan = {
        "argv": ["/usr/bin/env"],
        "environment": {"HOME": str(tmp_path), "ONLY": "this"},
        "socket": str(tmp_path / "stale.sock"),
    }
    (tmp_path / "plan").write_text(json.dumps(plan))
    python = ROOT / "build/venv/bin/python"
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path), "LEAK": "no"}
    done = run([python, "-m", "guest.launch"], env=env, cwd=ROOT)
    assert sorted(done.stdout.decode().split()) == [f"HOME={tmp_path}", "ONLY=this"]
    assert not (tmp_path / "stale.sock").exists()


@pytest.mark.guarantee("G16")
def test_launch_without_a_plan_says_so_in_one_line(tmp_path: Path) -> None:
    python = ROOT / "build/venv/bin/python"
    done = run(
        [python, "-m", "guest.launch"], env={"CREDENTIALS_DIRECTORY": str(tmp_path)}, cwd=ROOT, check=False
    )
    assert done.status != 0
    assert done.stderr.decode().startswith("strongroom-engine: ")
    assert done.stderr.count(b"\n") == 1
