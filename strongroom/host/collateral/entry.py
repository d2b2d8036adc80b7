"""An item and its parts as one file: canonical JSON, the same wherever it was made. See docs/formats/collateral.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.host.collateral.item import Item, Parts, check_keys, name_of
from strongroom.host.collateral.kinds import KINDS
from strongroom.wire.canonical import JSON, b64, pack_json, parse_json, unb64

VERSION: Final = "strongroom/collateral/v1"
MAX_BYTES: Final = 1 << 20  # of one entry
_SUBJECT: Final = "collateral entry"


@dataclass(frozen=True, slots=True)
class Entry:
    """A question and its answer, not examined yet."""

    item: Item
    parts: Parts = field(repr=False)

    @property
    def name(self) -> str:
        return name_of(self.item)

    def pack(self) -> bytes:
        parts: dict[str, JSON] = {name: b64(part) for name, part in self.parts.items()}
        entry: dict[str, JSON] = {
            "version": VERSION,
            "kind": self.item.kind,
            "subject": self.item.subject(),
            "parts": parts,
        }
        return pack_json(entry)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises FormatError for anything but what `pack` makes."""
        raw = parse_json(data, _SUBJECT, max_bytes=MAX_BYTES)
        if not isinstance(raw, dict):
            raise FormatError(f"{_SUBJECT}: not an object")
        check_keys(raw, {"version", "kind", "subject", "parts"}, _SUBJECT)
        kind, subject, parts = raw["kind"], raw["subject"], raw["parts"]
        if raw["version"] != VERSION:
            raise FormatError(f"{_SUBJECT}: version is {str(raw['version'])[:64]!a}, want {VERSION}")
        if not isinstance(kind, str) or kind not in KINDS:
            raise FormatError(f"{_SUBJECT}: kind is {str(kind)[:64]!a}, want one of {', '.join(KINDS)}")
        if not isinstance(subject, dict) or not isinstance(parts, dict):
            raise FormatError(f"{_SUBJECT}: subject and parts are not objects")
        entry = cls(KINDS[kind].from_subject(subject), MappingProxyType(_parts(parts)))
        if entry.pack() != data:
            raise FormatError(f"{_SUBJECT}: not in the canonical form")
        return entry


def _parts(raw: Mapping[str, JSON]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, value in raw.items():
        if not isinstance(value, str):
            raise FormatError(f"{_SUBJECT}: part {name[:32]!a} is not text")
        found[name] = unb64(value, f"{_SUBJECT}: part {name[:32]!a}")
    return found
