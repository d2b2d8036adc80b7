"""Every vector beside the checkout gives what its index expects, and the table itself is no rubber stamp."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.verify.roots import PRODUCTION
from tests import ROOT, VECTORS
from tests.fakes import silicon as silicon_fake
from tests.vector_table import OBSERVERS, main, run
from tests.vectors.index import VectorSet
from tests.vectors.judge import Observation, differences, problems, states

SILICON = silicon_fake.silicon()
ROOTS = silicon_fake.roots(SILICON)


def shared() -> VectorSet:
    if not (VECTORS / "index.json").exists():
        pytest.skip("no real vectors beside this checkout")
    return VectorSet.load(VECTORS)


def test_every_vector_gives_what_its_index_expects() -> None:
    failed = [f"{o.vector}: {p}" for o in run(shared()) for p in o.problems]
    assert not failed


def test_the_code_names_no_vector_and_no_file_of_the_set() -> None:
    vectors = shared()
    named = {path for v in vectors.vectors for paths in v.paths.values() for path in paths}
    named |= {Path(path).name for path in named} | {vector.id for vector in vectors.vectors}
    sources = [
        *(ROOT / "tests/vectors").glob("*.py"),
        ROOT / "tests/vector_table.py",
        ROOT / "bench/verify.py",
    ]
    for source in sources:
        text = source.read_text()
        assert not [name for name in named if f'"{name}"' in text], source.name


def test_a_set_with_other_names_runs_unchanged(tmp_path: Path) -> None:
    shared()
    index = json.loads((VECTORS / "index.json").read_text())
    # What one file names inside another has to keep its name; everything else gets a new one.
    keeping = {Path(p).parent for v in index["vectors"] if "cases" in v["files"] for p in _all_paths(v)}
    renamed = {
        path: f"moved/{n}/{Path(path).name}" if Path(path).parent not in keeping else f"moved/{path}"
        for n, path in enumerate(index["files"])
    }
    renamed = {
        path: new if Path(path).parent in keeping else f"moved/{n}"
        for n, (path, new) in enumerate(renamed.items())
    }
    for path, new in renamed.items():
        (tmp_path / new).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / new).write_bytes((VECTORS / path).read_bytes())
    index = _replaced(index, renamed)
    for n, vector in enumerate(index["vectors"]):
        vector["id"] = f"vector {n}"
    (tmp_path / "index.json").write_text(json.dumps(index | {"set": "another"}))
    assert main([str(tmp_path)]) == 0


def _all_paths(vector: dict[str, Any]) -> list[str]:
    return [p for paths in vector["files"].values() for p in ([paths] if isinstance(paths, str) else paths)]


def _replaced(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _replaced(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def made(tmp_path: Path, **expect: Any) -> VectorSet:
    """A set of one report by simulated silicon, whose index says `expect` of it."""
    table = CertificateTable.parse(SILICON.certificates())
    pem = b""
    for der in (table.ask, table.ark):
        (tmp_path / f"{len(pem)}.der").write_bytes(der or b"")
        pem += b"x"
    (tmp_path / "a").write_bytes(SILICON.report(bytes(64)))
    (tmp_path / "b").write_bytes(table.vcek or b"")
    index = {
        "set": "made",
        "generated": "2026-11-20",
        "vectors": [
            {
                "id": "one",
                "kind": "snp-report",
                "files": {"report": "a", "leaf": "b", "ca": ["0.der", "1.der"]},
                "expect": expect,
            }
        ],
        "files": {"a": {"sha256": hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()}},
    }
    (tmp_path / "index.json").write_text(json.dumps(index))
    return VectorSet.load(tmp_path)


def outcome(vectors: VectorSet, roots: Any = ROOTS) -> tuple[str, ...]:
    (only,) = run(vectors, roots)
    return only.problems


def test_a_set_made_here_passes(tmp_path: Path) -> None:
    vectors = made(tmp_path, fields={"vmpl": 0, "version": 5}, chain_valid=True, signature_valid=True)
    found = outcome(vectors)
    assert found == () or "version" in found[0]
    fields = {"vmpl": 0, "measurement": SILICON.measurement.hex()}
    assert outcome(made(tmp_path, fields=fields, chain_valid=True, signature_valid=True)) == ()


@pytest.mark.parametrize(
    ("expect", "why"),
    [
        ({"fields": {"vmpl": 1}}, "fields.vmpl: found 0, want 1"),
        ({"fields": {"colour": "red"}}, "fields.colour: not observed"),
        ({"signature_valid": False}, "signature_valid: found True, want False"),
        ({"reject": "signature"}, "accepted, want refused: signature"),
    ],
)
def test_what_is_not_as_expected_fails(expect: dict[str, Any], why: str, tmp_path: Path) -> None:
    assert why in outcome(made(tmp_path, **expect))


def test_simulated_silicon_fails_under_production_roots(tmp_path: Path) -> None:
    found = outcome(made(tmp_path, chain_valid=True, signature_valid=True), PRODUCTION)
    assert any("refused: ark: sha256 is" in problem for problem in found)


def test_a_refusal_nobody_expects_fails() -> None:
    observed = Observation({"count": 1}, [VerifyError("gpus: 2 devices are 1, want all distinct")])
    assert list(problems({"count": 1}, observed)) == ["refused: gpus: 2 devices are 1, want all distinct"]


def test_a_file_that_is_not_the_one_described_fails(tmp_path: Path) -> None:
    vectors = made(tmp_path, chain_valid=True)
    (tmp_path / "a").write_bytes(bytes(1184))
    assert "sha256 differs" in outcome(vectors)[0]


def test_an_unknown_kind_fails_and_the_table_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    index["vectors"][0]["kind"] = "abacus"
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "no verifier for the kind 'abacus'" in out and out.splitlines()[1].split() == [
        "abacus",
        "1",
        "0",
        "1",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"set": "x"}', "\xff"])
def test_no_index_is_a_usage_error(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.json").write_text(text)
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("vectors: ")


def test_an_empty_set_is_no_pass(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"set": "x", "generated": "2026-01-01", "vectors": []}')
    assert main([str(tmp_path)]) == 1


@pytest.mark.parametrize(
    ("sentence", "reason", "same"),
    [
        ("snp report: signature is not its certificate's", "signature", True),
        ("snp report: got 1183 bytes, want 1184", "length", True),
        ("snp report: got 1183 bytes, want 1184", "signature", False),
        ("vcek: signature is not SEV-Milan's", "leaf not issued by ASK", True),
        ("vcek: expired 2026-01-01", "leaf not issued by ASK", False),
        ("qe report: signature is not the pck's", "QE report signature", True),
        ("tdx quote: signature is not the attestation key's", "QE report signature", False),
        ("tcb info: is for fmspc 00, want 11", "FMSPC mismatch (or expired)", True),
        ("tcb info: expired 2026-01-01", "FMSPC mismatch (or expired)", True),
        ("tcb info: expired 2026-01-01", "tcb info signature", False),
        ("ocsp: device is revoked", "revoked", True),
        ("gpu report: made for another nonce", "nonce", True),
    ],
)
def test_a_refusal_has_to_give_the_stated_reason(sentence: str, reason: str, same: bool) -> None:
    assert states(sentence, reason) is same


def test_differences_are_found_at_any_depth() -> None:
    wanted = {"a": [{"b": 1}, {"b": 2}], "note": "prose", "tool_1_2_3": {"x": 1}}
    assert not list(differences(wanted, {"a": [{"b": 1}, {"b": 2}]}, ""))
    assert list(differences(wanted, {"a": [{"b": 1}, {"b": 3}]}, "")) == ["a[1].b: found 3, want 2"]
    assert list(differences(wanted, {"a": [{"b": 1}]}, "")) != []
    assert list(differences({"a": {}}, {"a": 1}, "")) == ["a: found 1, want an object"]


def test_every_observer_exists() -> None:
    import importlib  # noqa: PLC0415

    for name in OBSERVERS.values():
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(f"tests.vectors.{module}"), function))


def test_a_defect_is_a_failure_not_an_end() -> None:
    observed = Observation()
    assert observed.attempt(lambda: 1) == 1
    assert observed.attempt(lambda: (_ for _ in ()).throw(FormatError("x"))) is None
    with pytest.raises(ZeroDivisionError):
        observed.attempt(lambda: 1 // 0)
