"""Registers taken together, as dstack's policies name a machine: SHA-256 over what the hardware reports.

               mr_system (the machine)                            mr_aggregated (and what runs in it)
    TDX        mrtd, rtmr0, rtmr1, rtmr2, mr_key_provider         mrtd, rtmr0..rtmr3 [, mr_config_id, mr_owner,
                                                                  mr_owner_config, when one of them is not zero]
    SEV-SNP    measurement                                        measurement, host_data

mr_key_provider is SHA-256 of the payload of the event "key-provider", or 32 zero bytes without one.
"""

from hashlib import sha256

from strongroom.evidence.tdx import TDReportBody


def mr_system_tdx(body: TDReportBody, *, key_provider: bytes | None) -> bytes:
    provider = bytes(32) if key_provider is None else sha256(key_provider).digest()
    return sha256(b"".join((body.mr_td, body.rtmr0, body.rtmr1, body.rtmr2, provider))).digest()


def mr_aggregated_tdx(body: TDReportBody) -> bytes:
    owned = body.mr_config_id + body.mr_owner + body.mr_owner_config
    return sha256(b"".join((body.mr_td, *body.rtmrs, owned if any(owned) else b""))).digest()


def mr_system_snp(measurement: bytes) -> bytes:
    return sha256(measurement).digest()


def mr_aggregated_snp(measurement: bytes, host_data: bytes) -> bytes:
    return sha256(measurement + host_data).digest()


def device_id(hardware: bytes) -> bytes:
    """32 bytes that stand for a machine: SHA-256 of what its maker calls it (PPID, CHIP_ID)."""
    return sha256(hardware).digest()
