"""What the makers of this machine sign about it, put into its own bundles so that their reader needs no network.

It lies in the directory that `strongroom collateral` fills, and nobody here believes it more than a reader will: it is
examined, and what is absent, forged or out of date is left out. That is never a reason to give no evidence.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from guest.judge import DIRECTORY
from strongroom.errors import FormatError, MachineError, StrongroomError
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.host.collateral import supply, wanted
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.nvidia import NVIDIAStatus
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.supply import Supplied
from strongroom.verify.roots import PRODUCTION, Roots

ISSUERS: Final = "vtpm-issuers.pem"  # in the same directory: certificates above that of the vTPM's key
_AMD: Final = ("snp", "azure-snp")

_State = tuple[tuple[str, int, int], ...]  # name, time and size of every entry


@dataclass(frozen=True, slots=True)
class _Found:
    items: tuple[Item, ...]
    state: _State
    supplied: Supplied


class KeptCollateral:
    """The directory's collateral. What was found is found again only after an entry changed or ran out."""

    def __init__(
        self,
        directory: Path = DIRECTORY,
        *,
        roots: Roots = PRODUCTION,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._roots, self._now = Store(directory), roots, now
        self._found: _Found | None = None
        self._devices: dict[bytes, list[Item]] = {}  # by certificates: firmware and driver stay for a boot

    def complete(self, bundle: Bundle) -> Bundle:
        """The bundle with the collateral there is, and the chip's certificates where the host gave none. Blocking."""
        now = self._now()
        items = wanted.for_bundle(replace(bundle, gpus=()), roots=self._roots, now=now)
        for device in bundle.gpus:
            items += self._wanted_by(device, now)
        supplied = self._supplied(tuple(dict.fromkeys(items)), now)
        certificates = bundle.certificates
        if bundle.tee in _AMD:
            certificates = filled(certificates, supplied.certificates)
        return replace(bundle, certificates=certificates, collateral=_useful(supplied))

    def table(self, report: bytes, certificates: bytes) -> bytes:
        """A host's certificate table for an SNP report, with what it lacks where that is kept."""
        try:
            items = wanted.for_snp_report(SNPReport.parse(report))
        except StrongroomError:
            return certificates
        return filled(certificates, self._supplied(tuple(items), self._now()).certificates)

    def _wanted_by(self, device: GPUEvidence, now: datetime) -> list[Item]:
        if device.certificates not in self._devices:
            self._devices[device.certificates] = wanted.for_device(device, roots=self._roots, now=now)
        return self._devices[device.certificates]

    def _supplied(self, items: tuple[Item, ...], now: datetime) -> Supplied:
        found, state = self._found, self._state()
        if found is None or (found.items, found.state) != (items, state) or now > found.supplied.until:
            supplied = supply.at_hand(items, self._store, roots=self._roots, now=now)
            found = self._found = _Found(items, state, supplied)
        return found.supplied

    def _state(self) -> _State:
        entries: list[tuple[str, int, int]] = []
        try:
            for name in self._store.names():
                status = (self._store.directory / f"{name}.json").lstat()
                entries.append((name, status.st_mtime_ns, status.st_size))
        except (MachineError, OSError):
            return ()  # no directory, or an entry that went away meanwhile
        return tuple(entries)


def _useful(supplied: Supplied) -> Collateral:
    """Without a responder's answers where one of them is lacking: some are worse for a reader than none."""
    cut = {supply.name_of_answer(item) for item in supplied.lacking if isinstance(item, NVIDIAStatus)}
    kinds = {name.partition("/")[0] for name in cut}
    return Collateral.of(
        {name: data for name, data in supplied.collateral if name.partition("/")[0] not in kinds}
    )


def filled(certificates: bytes, kept: CertificateTable) -> bytes:
    """A certificate table with what it lacks of a chip's chain; as it is where it cannot be read."""
    try:
        given = CertificateTable.parse(certificates)
    except FormatError:
        return certificates
    lacking = {role: getattr(kept, role) for role in ("vcek", "ask", "ark") if getattr(given, role) is None}
    if given.vlek is not None:
        lacking.pop("vcek", None)
    if not any(lacking.values()):
        return certificates
    return replace(given, **lacking).pack()
