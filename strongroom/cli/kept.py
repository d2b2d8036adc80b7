"""A verb's own collateral: what `strongroom collateral` keeps, and with --fetch what makers answer now."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from strongroom.appraise.policy import Policy
from strongroom.cli.terminal import one_line
from strongroom.errors import ConfigError
from strongroom.evidence.bundle import Bundle
from strongroom.host.attested import Address, Candidate, Door, Examination
from strongroom.host.collateral import supply, wanted
from strongroom.host.collateral.amd import AMDIssuers
from strongroom.host.collateral.client import Client
from strongroom.host.collateral.fill import fill
from strongroom.host.collateral.intel import IntelPlatform
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.nvidia import NVIDIAManifest
from strongroom.host.collateral.services import PUBLIC
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.supply import Supplied
from strongroom.verify.lacking import LackingError
from strongroom.verify.roots import Roots

HELP: Final = (
    "your own collateral: the directory of `strongroom collateral` (default: its own, where there is one)"
)


def add_collateral(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--collateral", type=Path, metavar="DIR", help=HELP)


def add_fetch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="ask the makers for what is lacking, keep it, and verify again; they learn what you verify",
    )


def default_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "strongroom" / "collateral"


class Kept:
    """A supply (strongroom.host.collateral.supply.Supply) that remembers what it did not have."""

    def __init__(self, directory: Path | None, *, roots: Roots, now: datetime, fetches: bool = False) -> None:
        if directory is not None and not directory.is_dir() and not fetches:
            raise ConfigError(
                f"--collateral: {directory} is no directory, want what `strongroom collateral` fills"
            )
        self._named, self.fetches = directory, fetches
        self._directory = directory or default_directory()
        self._roots, self._now = roots, now
        self._wanted: Sequence[Item] = ()
        self._lacking: Sequence[Item] = ()

    def __call__(self, bundle: Bundle) -> Supplied:
        self._wanted = wanted.for_bundle(bundle, roots=self._roots, now=self._now)
        found = supply.at_hand(self._wanted, Store(self._directory), roots=self._roots, now=self._now)
        self._lacking = [item for item in found.lacking if not supply.is_answered(item, bundle.collateral)]
        return found

    def examine(
        self, address: Address, policy: Policy, *, timeout: float, door: Door = Door.SERVING
    ) -> Examination:
        """What a server proves. With --fetch: once more with what was lacking, if anything was."""
        try:
            examined = self._examine(address, policy, timeout, door)
        except LackingError as error:
            if not self.fetches:
                raise LackingError(f"{error}; {self.remedy}") from None
            self._fetch(self._wanted)  # also what the server brought: it may be what is out of date
        else:
            if not self.fetches or not self._lacking:
                return examined
            self._fetch(self._lacking)
        return self._examine(address, policy, timeout, door)

    def fetch(self) -> None:
        """Ask the makers for all that the last evidence took."""
        self._fetch(self._wanted)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What lacks inside is told with the way to get it."""
        try:
            yield
        except LackingError as error:
            raise LackingError(f"{error}; {self.remedy}") from None

    @property
    def remedy(self) -> str:
        """How to get what the last evidence took, in words."""
        options = [option for item in self._wanted if (option := _option(item)) is not None]
        if not options:
            return "get it with --fetch"
        where = ["--cache", str(self._named)] if self._named is not None else []
        return f"get it with --fetch, or `{' '.join(['strongroom collateral fill', *options, *where])}`"

    def _examine(self, address: Address, policy: Policy, timeout: float, door: Door) -> Examination:
        with Candidate.dial(address, timeout=timeout) as candidate:
            return candidate.examine(policy=policy, roots=self._roots, now=self._now, supply=self, door=door)

    def _fetch(self, items: Sequence[Item]) -> None:
        store, client = Store.create(self._directory), Client(services=PUBLIC)
        for outcome in asyncio.run(fill(items, store, client, roots=self._roots, now=self._now)):
            why = f": {outcome.error}" if outcome.error is not None else ""
            print(one_line(f"{outcome.state}: {outcome.item.title}{why}"), file=sys.stderr)


def _option(item: Item) -> str | None:
    """How `strongroom collateral fill` is asked for it by name."""
    match item:
        case IntelPlatform():
            return f"--tdx-platform {item.fmspc.hex()}:{item.ca}"
        case AMDIssuers(leaf="vcek"):
            return f"--snp-issuers {item.product}"
        case NVIDIAManifest():
            return f"--rim {item.id}"
    return None
