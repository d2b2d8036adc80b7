"""The versions of the KBS protocol that are spoken here: one server knows one, and there is no negotiation.

version  CoCo releases     POST /attest                                         digest over
0.2.0    0.12, 0.13        tee-pubkey, tee-evidence                             nonce, tee-pubkey
0.3.0    between two       tee-pubkey, tee-evidence {primary, additional}       the same and additional-evidence
0.4.0    0.14 and later    init-data, runtime-data {nonce, tee-pubkey}, ditto   the same and additional-evidence
"""

from dataclasses import dataclass
from typing import Final

from strongroom.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    version: str
    composite: bool = True  # evidence of devices beside the CPU's
    repeats_nonce: bool = True  # the attestation says its nonce, and may bring init-data
    old_names: bool = False  # TEE names without hyphens, evidence in its shapes of then


CURRENT: Final = Dialect(version="0.4.0")
DIALECTS: Final = {
    dialect.version: dialect
    for dialect in (
        CURRENT,
        Dialect(version="0.3.0", repeats_nonce=False, old_names=True),
        Dialect(version="0.2.0", repeats_nonce=False, old_names=True, composite=False),
    )
}


def dialect_of(version: str) -> Dialect:
    """ConfigError for a version that is not spoken here."""
    if version not in DIALECTS:
        raise ConfigError(f"broker protocol: got {version[:40]!a}, want one of {', '.join(sorted(DIALECTS))}")
    return DIALECTS[version]
