"""Is what a guest handed the broker genuine, and what is it? The desk's evidence, with collateral the broker keeps.

This protocol carries no collateral but the certificates of an SNP chip: what Intel and NVIDIA sign, and AMD's issuers
and revocations, lies in the directory that `strongroom collateral` fills. Nobody here believes that directory.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from strongroom.broker.proof import Finding, Proof
from strongroom.host.collateral import supply, wanted
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.supply import Supplied
from strongroom.verify.claims import Claims
from strongroom.verify.kbs import verify_kbs
from strongroom.verify.nvidia import GPUClaims
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import JSON

K = TypeVar("K")
V = TypeVar("V")
Verify: TypeAlias = Callable[[Proof, Roots, datetime], Claims]

FRESH: Final = timedelta(seconds=10)
COLLATERAL: Final = "collateral"  # the directory, inside a broker's own
_KEPT: Final = 64  # machines, and answers of the store, that are remembered
_State: TypeAlias = tuple[int, int]


class Verifier:
    """Claims of a proof (see `Verify`); VerifyError unless it is genuine under the roots given.

    What the directory had is asked again only after something in it changed, or an answer ran out. A guest's questions
    follow one another closely: what was found of its evidence under the same roots is good for FRESH. Blocking.
    """

    def __init__(self, collateral: Path | None = None) -> None:
        self._store = None if collateral is None else Store(collateral)
        self._found: dict[tuple[object, ...], tuple[datetime, Claims]] = {}
        self._known: dict[tuple[tuple[Item, ...], frozenset[bytes]], tuple[_State, Supplied]] = {}

    def __call__(self, proof: Proof, roots: Roots, now: datetime) -> Claims:
        key = (
            proof.sha256,
            proof.digests,
            roots.insecure,
            roots.tpm_keys,
        )  # the digests are of one session alone
        if (found := self._found.get(key)) is not None and found[0] <= now < found[0] + FRESH:
            return found[1]
        claims = self._verified(proof, roots, now)
        _bounded(self._found)[key] = (now, claims)
        return claims

    def _verified(self, proof: Proof, roots: Roots, now: datetime) -> Claims:
        supplied = self._supplied(proof, roots, now)
        return verify_kbs(
            proof.evidence,
            proof.digests,
            roots=roots,
            now=now,
            collateral=supplied.collateral,
            issuers=supplied.certificates,
        )

    def _supplied(self, proof: Proof, roots: Roots, now: datetime) -> Supplied:
        if self._store is None:
            return Supplied()
        items = tuple(wanted.for_kbs(proof.evidence, roots=roots, now=now))
        if not items:
            return Supplied()
        state, key = _state(self._store.directory), (items, roots.insecure)
        if (known := self._known.get(key)) is not None and known[0] == state and now <= known[1].until:
            return known[1]
        supplied = supply.at_hand(items, self._store, roots=roots, now=now)
        _bounded(self._known)[key] = (state, supplied)
        return supplied


def finding(claims: Claims) -> Finding:
    """What a token says of verified claims."""
    return Finding(
        simulated=claims.simulated,
        debug=claims.debug,
        cpu=dict(_cpu(claims)),
        devices=tuple(_devices(claims)),
    )


def _cpu(claims: Claims) -> Iterator[tuple[str, JSON]]:
    if claims.tee != "tpm":
        yield "measurement", claims.measurement.hex()
        yield "init_data", claims.host_data.hex()
        yield "policy_debug_allowed", claims.debug
        yield "policy_migrate_ma", claims.migration
    if claims.reported_tcb is not None:
        yield from ((f"reported_tcb_{part}", level) for part, level in claims.reported_tcb.levels().items())
        yield "policy_smt_allowed", claims.smt
        yield "vmpl", claims.vmpl
    if claims.tdx is not None:
        body = claims.tdx.body
        yield "mr_td", body.mr_td.hex()
        yield from ((f"rtmr_{index}", value.hex()) for index, value in enumerate(body.rtmrs))
        yield "xfam", f"{body.xfam:016x}"
        yield "tcb_status", str(claims.tdx.tcb_status)
        yield "advisory_ids", list(claims.tdx.advisories)
    if claims.tpm is not None:
        yield "tpm", {f"pcr{index:02}": value.hex() for index, value in claims.tpm.pcrs.items()}


def _devices(claims: Claims) -> Iterator[tuple[str, dict[str, JSON]]]:
    if claims.devices is None:
        return
    found = claims.devices.devices
    for device in (*found.gpus, *found.switches):
        yield device.kind, _device(device, measured=claims.devices.measured)


def _device(device: GPUClaims, *, measured: bool) -> dict[str, JSON]:
    return {
        "arch": device.architecture,
        "hwmodel": device.model,
        "driver_version": device.driver_version,
        "vbios_version": device.vbios_version,
        "measured": measured,
        "insecure_simulated": device.simulated,
    }


def _bounded(table: dict[K, V]) -> dict[K, V]:
    """With room for one more: what is oldest goes."""
    while len(table) >= _KEPT:
        table.pop(next(iter(table)))
    return table


def _state(directory: Path) -> _State:
    """Changes when an entry is put there: entries are only ever replaced by renaming."""
    try:
        status = directory.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)
