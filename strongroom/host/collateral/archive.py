"""A whole store as one tar file, to carry it to where there is no network.

What comes out of a file is as untrusted as what comes off the network, and passes the same examination.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.host.collateral.entry import MAX_BYTES, Entry
from strongroom.host.collateral.item import Item, Signed, name_of
from strongroom.host.collateral.store import Store
from strongroom.verify.roots import Roots

MAX_ARCHIVE: Final = 64 << 20  # bytes
MAX_ENTRIES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Imported:
    """How it went for one entry of an archive."""

    item: Item
    signed: Signed | None
    error: StrongroomError | None = None

    @property
    def name(self) -> str:
        return name_of(self.item)


def pack_archive(store: Store) -> bytes:
    """Every entry of the store: the same bytes for the same entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        for entry in store.entries():
            content = entry.pack()
            member = tarfile.TarInfo(f"{entry.name}.json")
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def take_archive(data: bytes, store: Store, *, roots: Roots, now: datetime) -> list[Imported]:
    """Put every entry of an archive that is genuine and holds at `now` into the store; say how each fared.

    Raises FormatError when it is no archive of ours at all, before anything is put.
    """
    return [_put(entry, store, roots, now) for entry in list(_entries(data))]


def _put(entry: Entry, store: Store, roots: Roots, now: datetime) -> Imported:
    try:
        return Imported(entry.item, store.put(entry, roots=roots, now=now))
    except (VerifyError, FormatError) as error:
        return Imported(entry.item, None, error)


def _entries(data: bytes) -> Iterator[Entry]:
    if len(data) > MAX_ARCHIVE:
        raise FormatError(f"archive: longer than {MAX_ARCHIVE} bytes")
    names = set[str]()
    for name, content in _members(data):
        try:
            entry = Entry.parse(content)
        except FormatError as error:
            raise FormatError(f"archive: member {name[:80]!a}: {error}") from None
        if name != f"{entry.name}.json" or name in names:
            raise FormatError(f"archive: member {name[:80]!a} is there twice or answers another question")
        names.add(name)
        if len(names) > MAX_ENTRIES:
            raise FormatError(f"archive: more than {MAX_ENTRIES} entries")
        yield entry


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errorlevel=2) as tar:
            for member in tar:
                if member.type != tarfile.REGTYPE or member.pax_headers or not 0 < member.size <= MAX_BYTES:
                    raise FormatError(
                        f"archive: member {member.name[:80]!a} is no file of 1..{MAX_BYTES} bytes"
                    )
                file = tar.extractfile(member)
                content = file.read() if file else b""
                if len(content) != member.size:
                    raise FormatError(f"archive: member {member.name[:80]!a} is cut short")
                yield member.name, content
    except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError, RecursionError) as error:
        raise FormatError(f"archive: not a tar file we can read ({type(error).__name__})") from None
