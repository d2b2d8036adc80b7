"""Mirrors strongroom/evidence/dstack_registers.py."""

from dataclasses import replace
from hashlib import sha256

from strongroom.evidence.dstack_registers import (
    device_id,
    mr_aggregated_snp,
    mr_aggregated_tdx,
    mr_system_snp,
    mr_system_tdx,
)
from strongroom.evidence.tdx import TDReportBody

BODY = TDReportBody.parse(bytes(n // 48 % 251 for n in range(584)))
BARE = replace(BODY, mr_config_id=bytes(48), mr_owner=bytes(48), mr_owner_config=bytes(48))


def test_tdx_from_the_offsets_of_a_quote() -> None:
    quote = bytes(48) + BODY.pack()
    mrtd, rtmrs, owned = quote[184:232], quote[376:568], quote[232:376]
    assert mr_aggregated_tdx(BODY) == sha256(mrtd + rtmrs + owned).digest()
    assert mr_system_tdx(BODY, key_provider=None) == sha256(mrtd + rtmrs[:144] + bytes(32)).digest()
    assert mr_aggregated_tdx(BARE) == sha256(mrtd + rtmrs).digest()


def test_a_key_provider_counts_for_the_system() -> None:
    payload = b'{"name":"none","id":""}'
    want = sha256(BODY.mr_td + BODY.rtmr0 + BODY.rtmr1 + BODY.rtmr2 + sha256(payload).digest()).digest()
    assert mr_system_tdx(BODY, key_provider=payload) == want
    assert mr_aggregated_tdx(BODY) != want


def test_snp_and_the_device() -> None:
    assert mr_system_snp(bytes(48)) == sha256(bytes(48)).digest()
    assert mr_aggregated_snp(bytes(48), bytes(32)) == sha256(bytes(80)).digest()
    assert device_id(bytes(64)) == sha256(bytes(64)).digest()
