"""A second opinion on quotes: dcap-qvl, written by others in another language. It enters here alone."""

import json
from datetime import datetime
from typing import Any

import pytest

from strongroom.verify.tdx_collateral import TDXCollateral


def second_opinion(
    quote: bytes, collateral: TDXCollateral, *, now: datetime, root: bytes | None = None
) -> tuple[str, tuple[str, ...]] | str:
    """Status and advisories, or the sentence it refuses with; `root` replaces Intel's (DER)."""
    dcap: Any = pytest.importorskip("dcap_qvl", reason="no second opinion: dcap-qvl is not installed")
    theirs = dcap.QuoteCollateralV3.from_json(json.dumps(collateral.to_json()))
    at = int(now.timestamp())
    try:
        verified = (
            dcap.verify(quote, theirs, at)
            if root is None
            else dcap.verify_with_root_ca(quote, theirs, root, at)
        )
    except ValueError as error:
        return str(error)
    return verified.status, tuple(sorted(verified.advisory_ids))
