"""Mirrors strongroom/verify/tdx_collateral.py."""

import json
from dataclasses import replace
from typing import Any

import pytest

from strongroom.errors import FormatError
from strongroom.verify.tdx_collateral import TDXCollateral
from tests import VECTORS
from tests.fakes.intel import Platform

GOOD = Platform().collateral()


def test_both_forms_hold_the_same_bytes() -> None:
    value = GOOD.to_json()
    assert TDXCollateral.from_json(json.loads(json.dumps(value))) == GOOD
    assert isinstance(value["tcb_info"], str)
    assert GOOD.tcb_info.startswith(b'{"tcbInfo":' + value["tcb_info"].encode())


@pytest.mark.skipif(not VECTORS.exists(), reason="no real vectors beside this checkout")
def test_genuine_collateral_survives_both_ways() -> None:
    paths = [*VECTORS.glob("tdx/collateral/*.json"), *VECTORS.glob("tdx/negative/*.json")]
    for path in paths:
        value = json.loads(path.read_text())
        assert TDXCollateral.from_json(value).to_json() == value
    assert len(paths) == 9


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tcb_info": None}, "a member is not text"),
        ({"more": "x"}, "want exactly the members"),
        ({"tcb_info_signature": "00" * 63}, "tcbInfo signature is 63 bytes, want 64"),
        ({"qe_identity_signature": "zz"}, "enclaveIdentity signature is not hexadecimal"),
        ({"root_ca_crl": "0"}, "root_ca_crl is not hexadecimal"),
        ({"pck_crl": ""}, "pck_crl is not hexadecimal"),
        ({"tcb_info": "\ud800"}, "lone surrogate"),
        ({"pck_crl_issuer_chain": ""}, "pck_crl_chain is 0 bytes"),
        ({"qe_identity": "x" * 300_000}, "qe_identity is .* bytes, want 1..262144"),
    ],
)
def test_other_values_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        TDXCollateral.from_json({**GOOD.to_json(), **changes})


def test_only_an_object_and_only_text_travel() -> None:
    with pytest.raises(FormatError, match="want exactly the members"):
        TDXCollateral.from_json([])
    with pytest.raises(FormatError, match="pck_crl_issuer_chain is not UTF-8"):
        replace(GOOD, pck_crl_chain=b"\xff").to_json()
