"""What the boot hands to the local REST's process: one credential, canonical JSON without a secret."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec

from guest.coco.rules import Rules
from strongroom.errors import FormatError
from strongroom.keys.jwk import pack_point, parse_point
from strongroom.wire.canonical import JSON, pack_json, parse_json

UNIT: Final = "strongroom-coco.service"
PLAN: Final = "plan"
MAX_PLAN: Final = 1 << 20  # bytes: systemd's own limit for a credential
VERSION: Final = 1

Signers = Mapping[str, ec.EllipticCurvePublicKey]
"""Keys (P-256) of those who may say which secret a program is to have, by the name they sign under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`port` is on 127.0.0.1, None where there is the unix socket alone."""

    rules: Rules = field(default_factory=Rules)
    port: int | None = None
    signers: Signers = field(default_factory=dict)

    def pack(self) -> bytes:
        signers: dict[str, JSON] = {kid: {**pack_point(key)} for kid, key in self.signers.items()}
        return pack_json(
            {
                "version": VERSION,
                "rules": self.rules.to_json(),
                "port": self.port,
                "signers": signers,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        match parse_json(data, "coco plan", max_bytes=MAX_PLAN):
            case {
                "version": 1,
                "rules": rules,
                "port": int() | None as port,
                "signers": dict(signers),
                **rest,
            } if not rest:
                keys = {kid: parse_point(key, f"signer {kid[:40]!a}") for kid, key in signers.items()}
                return cls(rules=Rules.from_json(rules), port=port, signers=keys)
        raise FormatError(f"coco plan: not of the form of version {VERSION}")
