"""Evidence as the broker's desk holds it: parsed, tied to the digests of one session, not yet judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from strongroom.evidence.initdata import InitData
from strongroom.evidence.kbs import CompositeEvidence, Digests
from strongroom.wire.canonical import JSON
from strongroom.wire.framing import enc


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Evidence of one machine, and what it has to carry to be of this session and this key."""

    evidence: CompositeEvidence
    digests: Digests
    init_data: InitData | None = None  # whose digest is one of them

    @property
    def sha256(self) -> bytes:
        """SHA-256 over everything in this evidence that is signed: its name in an audit log."""
        primary = self.evidence.primary
        quote = primary.tpm
        parts = [primary.tee.encode(), primary.report]
        parts += [] if quote is None else [quote.attest, quote.signature]
        parts += [device.report for device in self.evidence.gpus]
        return sha256(b"".join(map(enc, parts))).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What verification found of a proof, in the words a token carries. Nothing is judged in it."""

    simulated: bool
    debug: bool  # the host can look inside
    cpu: Mapping[str, JSON] = field(default_factory=dict)  # under the TEE's name
    devices: tuple[tuple[str, Mapping[str, JSON]], ...] = ()  # "gpu" or "switch", and what it is
