"""The single bits of an SNP report, by the names of the specification (AMD 56860)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

POLICY: Final[Mapping[str, int]] = MappingProxyType(
    {
        "smt_allowed": 16,
        "reserved_must_be_one": 17,
        "migrate_ma_allowed": 18,
        "debug_allowed": 19,
        "single_socket_required": 20,
        "cxl_allowed": 21,
        "mem_aes_256_xts": 22,
        "rapl_disabled": 23,
        "ciphertext_hiding_dram": 24,
        "page_swap_disabled": 25,
    }
)
PLATFORM: Final[Mapping[str, int]] = MappingProxyType(
    {
        "smt_en": 0,
        "tsme_en": 1,
        "ecc_en": 2,
        "rapl_dis": 3,
        "ciphertext_hiding_dram_en": 4,
        "alias_check_complete": 5,
        "bit6": 6,  # reserved, and set in genuine reports
        "sev_tio_en": 7,
    }
)
KEY: Final[Mapping[str, int]] = MappingProxyType({"author_key_en": 0, "mask_chip_key": 1})


def named(value: int, names: Mapping[str, int]) -> dict[str, bool]:
    """Every named bit of `value`."""
    return {name: bool(value >> bit & 1) for name, bit in names.items()}
