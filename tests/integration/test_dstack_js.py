"""dstack's SDK for JavaScript, from npm and unmodified, against our key socket on each kind of machine.

It parses HTTP by hand and counts characters, which is why it is tried beside the one in Python.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from strongroom.errors import MachineError
from strongroom.host.run import run
from strongroom.keys.dstack import AppKeys
from tests import ROOT, need
from tests.fakes.keysock import BACKENDS, served
from tests.fakes.keysock import ROOT as SECRET

VERSION: Final = "0.5.8"
CURVES: Final = "@noble/curves@1.8.1"  # it calls that optional, and does not start without it
FOLDER: Final = ROOT / "build" / "dstack-js"
SCRIPT: Final = ROOT / "tests" / "js" / "dstack.cjs"
NETWORK: Final = 120.0  # seconds
_OF_NPM: Final = re.compile(r"home|npm_.*|node_.*|(https?|no)_proxy")
PATH: Final = "app/db"


@pytest.fixture(scope="module")
def modules() -> Path:
    """Where node finds the SDK; fetched where it is not there yet."""
    need(shutil.which("node"), "there is no node: apt-get install nodejs npm")
    found = FOLDER / "node_modules"
    if not (found / ".complete").exists():
        need(shutil.which("npm"), "there is no npm: apt-get install nodejs npm")
        FOLDER.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
        argv += ["--fetch-retries=1", "--prefix", FOLDER]
        settings = {name: value for name, value in os.environ.items() if _OF_NPM.fullmatch(name.lower())}
        try:
            run([*argv, f"@phala/dstack-sdk@{VERSION}", CURVES], cwd=FOLDER, env=settings, timeout=NETWORK)
        except MachineError as error:
            need(False, f"npm gave no SDK: {error}")
        (found / ".complete").touch()
    return found


@pytest.fixture(scope="module", params=BACKENDS)
def said(
    request: pytest.FixtureRequest, modules: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """What the SDK made of one machine's answers."""
    if request.param == "vtpm":
        need(shutil.which("swtpm"), "there is no swtpm")
    with served(tmp_path_factory.mktemp("js"), request.param) as keysock:
        done = run(
            ["node", SCRIPT, keysock.path("dstack"), keysock.path("tappd"), PATH],
            env={"NODE_PATH": str(modules)},
            timeout=60,
        )
    answers: dict[str, Any] = json.loads(done.stdout)
    return request.param, answers


def test_keys_and_chains_are_those_of_the_root(said: tuple[str, dict[str, Any]]) -> None:
    keys, answers = AppKeys.from_seed(SECRET), said[1]
    claim = keys.claim_v0(PATH, "signing", "secp256k1")
    assert answers["key"] == answers["ed25519"] == claim.key.hex()
    assert answers["chain"] == [link.hex() for link in claim.chain]
    assert answers["many"] == [keys.key(f"{PATH}/{n}").hex() for n in range(20)]


def test_each_certificate_is_for_a_new_key(said: tuple[str, dict[str, Any]]) -> None:
    first, second = said[1]["tls"]
    assert first["key"] != second["key"]
    for made in (first, second):
        leaf, authority = (x509.load_pem_x509_certificate(pem.encode()) for pem in made["chain"])
        assert leaf.public_key() == load_pem_private_key(made["key"].encode(), None).public_key()
        leaf.verify_directly_issued_by(authority)
        assert made["octets"] == 138


def test_its_replay_is_what_info_states(said: tuple[str, dict[str, Any]]) -> None:
    backend, answers = said
    tcb = answers["info"]["tcb_info"]
    assert answers["quote"]["rtmrs"] == [tcb[f"rtmr{n}"] for n in range(4)]
    assert answers["quote"]["report_data"] == b"some data".ljust(64, b"\0").hex()
    assert answers["quote"]["bytes"] > 0
    assert len(tcb["mrtd"]) == 96
    assert tcb["strongroom"]["tee"] == ("azure-snp" if backend == "vtpm" else backend)
    assert answers["attestation"]
    assert answers["reachable"] is True
    assert answers["version"]["version"] == "0.5.11"


def test_it_signs_and_verifies(said: tuple[str, dict[str, Any]]) -> None:
    for algorithm in ("ed25519", "secp256k1"):
        assert said[1][f"signed_{algorithm}"] == [True, False, 3]


def test_the_old_socket(said: tuple[str, dict[str, Any]]) -> None:
    tappd = said[1]["tappd"]
    assert tappd["reachable"] is True
    assert tappd["key"].startswith("-----BEGIN PRIVATE KEY-----\n")
    assert tappd["quote"] > 0


def test_a_refusal_ends_in_an_error_there(said: tuple[str, dict[str, Any]]) -> None:
    assert said[1]["refused"]
