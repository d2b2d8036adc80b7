"""Evidence in other people's shapes, for the door alone: report data computed here from what each shape is made of.

    dstack-report   signing key || nonce, 64 bytes of which the last 16 are not all zero
    aci-report      SHA-256 of a statement, then 32 zero bytes
    boot-record     no evidence: what may be shown of this boot

The signing keys are those of the secret that this boot gave the door, and come from there: a door that could name
others could have any 64 bytes signed, among them a digest of the key broker's, or evidence for a stranger's key. None
of the shapes is one of our own, nor the key broker's (binding.is_reserved).

The first is longer than what programs may choose without raw_quote. The second is not: 32 bytes are what any program
with a right to quotes may choose, so where userdata gives one that right, this machine makes no aci/1 report. That
keeps no such program from making one, with a keyset of its own. Who knows the userdata can tell: its digest is the
event userdata, and what the launcher committed to; who does not knows a machine by such a report, and no door in it.

GPUs answer a stranger's nonce as it is, because that is what clients of these shapes compare, and it ties them to
nothing else. So they do where userdata asks for that (door.legacy_gpu), and nowhere else.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

from guest.attester import Attester
from guest.config import Config
from guest.evidence import DOOR_UNIT
from guest.keysock.rights import Method, Rights
from guest.machine.firmware_log import firmware_log
from guest.record import Record
from strongroom.errors import FormatError, PolicyError
from strongroom.evidence.binding import is_reserved
from strongroom.evidence.dstack_log import Log
from strongroom.host.foreign import Foreign, ForeignReport
from strongroom.receipts import aci, legacy
from strongroom.receipts.keys import DoorKeys
from strongroom.wire.canonical import JSON, unb64u

_EVIDENCE: Final = {Method.GET_QUOTE, Method.ATTEST}
LONGER_THAN: Final = 48  # significant bytes: what programs choose, and the key broker's shape, have no more
_SHOWN: Final = (
    "version", "state", "started_at", "measurement", "words", "userdata_sha256", "model", "engine", "stages",
    "agent_ms", "engine_ms", "gpus", "simulated",
)  # fmt: skip
_STAGE: Final = ("name", "outcome", "ms")
_UNIT: Final = ("state", "restarts")
_SHA256: Final = 32  # bytes


class ForeignEvidence:
    """Answers the door's questions that are not for evidence of our own."""

    def __init__(
        self,
        attester: Attester,
        record: Record,
        *,
        keys: DoorKeys,
        units: Collection[str],
        programs_quote: Callable[[], bool],
        firmware: Callable[[], Log] = firmware_log,
    ) -> None:
        """`keys` are the door's, `units` those that are shown with the boot.

        `programs_quote` is whether userdata lets programs have evidence over bytes of their own choice.
        """
        self.gpus = False  # whether GPUs answer here: known once userdata is
        self._attester, self._record, self._programs_quote = attester, record, programs_quote
        self._addresses = {
            legacy.ECDSA: legacy.address(keys.ethereum),
            legacy.ED25519: legacy.address(keys.receipt),
        }
        self._receipt_key = keys.receipt.public_key().public_bytes_raw()
        self._units = units
        self._read_firmware = firmware
        self._firmware: Log | None = None  # known once asked

    async def reply(self, unit: str, question: Mapping[str, JSON]) -> dict[str, JSON]:
        """The answer to one question of `unit`; raises StrongroomError."""
        if unit != DOOR_UNIT:
            raise PolicyError(f"evidence request: {unit} may not ask for others' evidence")
        match question:
            case {"purpose": Foreign.BOOT, **rest} if not rest:
                return {"boot": shown(self._record.content, self._units)}
            case {
                "purpose": Foreign.DSTACK,
                "signing_algo": str(algorithm),
                "nonce": str(nonce),
                "tls_spki_sha256": None | str() as tls,
                **rest,
            } if not rest and algorithm in self._addresses:
                spki = None if tls is None else unb64u(tls, "tls_spki_sha256")
                return await self._dstack(self._addresses[algorithm], unb64u(nonce, "nonce"), spki)
            case {
                "purpose": Foreign.ACI,
                "subject": None | str() as subject,
                "not_after": int(not_after),
                "receipt_key_id": str(key_id),
                "tls_spki_sha256": str(tls),
                "tls_domain": None | str() as domain,
                "nonce": None | str() as nonce,
                **rest,
            } if not rest and type(not_after) is int:
                keyset = aci.Keyset(
                    subject=subject,
                    not_after=not_after,
                    receipt_key_id=key_id,
                    receipt_key=self._receipt_key,
                    tls=aci.TLSKey(spki_sha256=_spki_sha256(tls), domain=domain),
                )
                return await self._aci(keyset, None if nonce is None else unb64u(nonce, "nonce"))
        raise FormatError("evidence request: want what belongs to that purpose, and nothing else")

    async def _dstack(self, address: str, nonce: bytes, spki: bytes | None) -> dict[str, JSON]:
        data = legacy.report_data(address, nonce=nonce, tls_spki_sha256=spki)
        if is_reserved(data) or len(data.rstrip(b"\0")) <= LONGER_THAN:
            raise PolicyError("evidence request: the nonce ends in 16 zero bytes, want a random one")
        return await self._report(data, nonce)

    async def _aci(self, keyset: aci.Keyset, nonce: bytes | None) -> dict[str, JSON]:
        if self._programs_quote():
            raise PolicyError("evidence request: userdata lets programs have evidence of this shape too")
        data = aci.report_data(keyset.digest, None if nonce is None else nonce.hex())
        return await self._report(data, nonce)

    async def _report(self, data: bytes, nonce: bytes | None) -> dict[str, JSON]:
        devices = await self._attester.devices(nonce) if self.gpus and nonce is not None else None
        if self._firmware is None:
            self._firmware = await asyncio.to_thread(self._read_firmware)
        made, log = await self._attester.over(data)
        return ForeignReport(
            tee=made.tee,
            report=made.outblob,
            certificates=made.auxblob,
            report_data=data,
            events=log,
            firmware=self._firmware,
            devices=devices,
        ).to_json()


def programs_quote(config: Config) -> bool:
    """Whether userdata lets any program of this machine have evidence over bytes of its own choice."""
    rights = Rights() if config.keys is None else config.keys.rights
    rules = (*rights.units.values(), *rights.uids.values())
    return config.coco is not None or any(rule.raw_quote or rule.methods & _EVIDENCE for rule in rules)


def shown(content: Mapping[str, JSON], units: Collection[str]) -> dict[str, JSON]:
    """What strangers may see of a boot record: digests, names of ours and milliseconds.

    No sentence of any error, and of all units only these: others are named by userdata.
    """
    record = {name: content[name] for name in _SHOWN if name in content}
    if isinstance(stages := record.get("stages"), list):
        record["stages"] = [_members(stage, _STAGE) for stage in stages if isinstance(stage, dict)]
    if isinstance(seen := content.get("units"), dict):
        record["units"] = {
            name: _members(unit, _UNIT) for name in units if isinstance(unit := seen.get(name), dict)
        }
    return record


def _members(value: Mapping[str, JSON], names: Collection[str]) -> dict[str, JSON]:
    return {name: member for name, member in value.items() if name in names}


def _spki_sha256(text: str) -> bytes:
    if len(digest := unb64u(text, "tls_spki_sha256")) != _SHA256:
        raise FormatError(f"tls_spki_sha256: {len(digest)} bytes, want {_SHA256}")
    return digest
