"""Programs of others, unmodified, on the local REST: KServe's storage package takes keys from it.

Its environment is one of its own, because it brings forty packages along:

    python3 -m venv DIR && DIR/bin/pip install "kserve-storage[confidential]==0.21.0"
    STRONGROOM_KSERVE=DIR/bin/python
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from guest.coco.plan import Plan
from guest.coco.rules import Rule, Rules
from strongroom.broker.resource import ResourceURI
from strongroom.host.run import run
from tests import ROOT
from tests.fakes.coco import SECRET, Coco, free_port, keeper, served

PYTHON: Final = Path(os.environ.get("STRONGROOM_KSERVE", ROOT / "build/kserve/bin/python"))
RESOLVE: Final = """
import json, sys
from importlib.metadata import version
from kserve_storage.confidential import CDHSecretResolver, SecretResolutionError
said = {"version": version("kserve-storage")}
for uri in sys.argv[1:]:
    try:
        said[uri] = CDHSecretResolver().resolve_key(uri).hex()
    except SecretResolutionError as error:
        said[uri] = str(error)
print(json.dumps(said))
"""
DECRYPT: Final = """
import json, pathlib, sys
from jwcrypto import jwe, jwk
from kserve_storage.confidential import CDHSecretResolver, JWEDecryptor
folder, uri, key = pathlib.Path(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3])
token = jwe.JWE(b"weights", json.dumps({"alg": "A256KW", "enc": "A256GCM"}))
token.add_recipient(jwk.JWK(kty="oct", k=jwe.base64url_encode(key)))
(folder / "model.bin.jwe").write_text(token.serialize(compact=True))
JWEDecryptor(CDHSecretResolver(), uri).decrypt_directory(folder)
print(json.dumps({p.name: p.read_text() for p in folder.iterdir()}))
"""


@pytest.fixture
def kserve() -> Path:
    if not PYTHON.exists():
        pytest.skip("no kserve-storage: see the head of this file")
    return PYTHON


@pytest.fixture
def coco(socket_dir: Path) -> Iterator[Coco]:
    told = keeper()
    told.resources[ResourceURI.parse("kbs:///default/models/key")] = bytes(range(128, 160))
    rules = Rules(uids={os.getuid(): Rule(resources=("default/db/password", "default/models/"))})
    with served(socket_dir, plan=Plan(rules=rules, port=free_port()), told=told) as coco:
        yield coco


def said(kserve: Path, coco: Coco, program: str, *arguments: str) -> Any:
    env = {"CDH_ADDR": f"http://127.0.0.1:{coco.plan.port}"}
    return json.loads(run([kserve, "-c", program, *arguments], env=env).stdout)


def test_kserves_resolver_reads_what_its_uid_may_have(kserve: Path, coco: Coco) -> None:
    uris = ("kbs:///default/db/password", "kbs:///default/db/key", "kbs:///default/models/none")
    found = said(kserve, coco, RESOLVE, *uris)
    assert found.pop("version").startswith("0.21.")
    assert found[uris[0]] == SECRET.hex()
    assert "403 Client Error: Forbidden" in found[uris[1]]  # no rule lists it
    assert "500 Server Error" in found[uris[2]]  # the broker has no such thing


def test_kserve_decrypts_a_model_with_a_key_from_here(kserve: Path, coco: Coco, tmp_path: Path) -> None:
    uri = "kbs:///default/models/key"
    found = said(kserve, coco, DECRYPT, str(tmp_path), uri, bytes(range(128, 160)).hex())
    assert found == {"model.bin": "weights"}


def test_a_refusal_of_the_broker_is_an_error_there_too(kserve: Path, coco: Coco) -> None:
    coco.keeper.reasons = ("measurement is 00, want 11",)
    uri = "kbs:///default/db/password"
    assert "500 Server Error" in said(kserve, coco, RESOLVE, uri)[uri]
