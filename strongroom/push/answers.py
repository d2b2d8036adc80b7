"""What a guest answers a provider: which bytes it wants, how far it is, and in the end what it accepted.

    PUT  /v1/push/manifest           {"missing": [[start, end], ...]}   or   {"accepted": {...}}
    PUT  /v1/push/content?from=N     {"next": N}       the first byte that is still missing; all: the content's size
    POST /v1/push/finish             {"accepted": {"name", "epoch", "root", "manifest_sha256", "provider_sha256"}}

Source: docs/formats/push.md, sections 4 and 5.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.push.content import Span
from strongroom.sealed.header import MAX_EPOCH
from strongroom.sealed.manifest import MAX_ENTRIES, check_name
from strongroom.wire.canonical import JSON, pack_json, parse_json

MANIFEST_PATH: Final = "/v1/push/manifest"
CONTENT_PATH: Final = "/v1/push/content"
FINISH_PATH: Final = "/v1/push/finish"
ACCEPTED: Final = "accepted "  # how the receiving unit tells the agent; behind it, Accepted in canonical JSON
MAX_RANGE: Final = 16 << 20  # bytes of content in one request
MAX_ANSWER: Final = 48 * MAX_ENTRIES  # bytes: each missing file takes a range at most
_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_MEMBERS: Final = {"name", "epoch", "root", "manifest_sha256", "provider_sha256"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What was pushed, by whom, and the sealed tree that it became."""

    name: str
    epoch: int
    root: bytes  # SHA-256 of the sealed tree's MANIFEST
    manifest_sha256: bytes  # of the provider's manifest, in the clear
    provider_sha256: bytes  # of the provider's key (DER SPKI)

    @classmethod
    def from_json(cls, value: JSON, subject: str = "accepted") -> Self:
        if not isinstance(value, dict) or value.keys() != _MEMBERS:
            raise FormatError(f"{subject}: want an object of exactly {', '.join(sorted(_MEMBERS))}")
        name, epoch = value["name"], value["epoch"]
        if not isinstance(name, str) or type(epoch) is not int or not 1 <= epoch <= MAX_EPOCH:
            raise FormatError(f"{subject}: want a name, and an epoch 1..{MAX_EPOCH}")
        check_name(name)
        root, manifest, provider = (
            _digest(value, key, subject) for key in ("root", "manifest_sha256", "provider_sha256")
        )
        return cls(name=name, epoch=epoch, root=root, manifest_sha256=manifest, provider_sha256=provider)

    def to_json(self) -> dict[str, JSON]:
        return {
            "name": self.name,
            "epoch": self.epoch,
            "root": self.root.hex(),
            "manifest_sha256": self.manifest_sha256.hex(),
            "provider_sha256": self.provider_sha256.hex(),
        }


@dataclass(frozen=True, slots=True)
class Missing:
    """What is still wanted, in the order in which it is to be sent. Nothing: the push can be finished."""

    spans: tuple[Span, ...]

    def pack(self) -> bytes:
        rows: list[JSON] = [[span.start, span.end] for span in self.spans]
        return pack_json({"missing": rows})


def pack_next(offset: int) -> bytes:
    return pack_json({"next": offset})


def pack_accepted(accepted: Accepted) -> bytes:
    return pack_json({"accepted": accepted.to_json()})


def parse_answer(data: bytes) -> Missing | Accepted | int:
    """Any of the three answers; the whole number is that of `next`. FormatError for anything else."""
    value = parse_json(data, "push answer", max_bytes=MAX_ANSWER, max_depth=4, max_values=MAX_ANSWER // 8)
    match value:
        case {"next": offset, **rest} if not rest and type(offset) is int and offset >= 0:
            return offset
        case {"accepted": accepted, **rest} if not rest:
            return Accepted.from_json(accepted, "push answer: accepted")
        case {"missing": list(rows), **rest} if not rest:
            return Missing(_spans(rows))
    raise FormatError("push answer: want exactly one of missing, next and accepted")


def _spans(rows: Sequence[JSON]) -> tuple[Span, ...]:
    spans, at = list[Span](), -1
    for row in rows:
        if not isinstance(row, list) or len(row) != 2:
            raise FormatError("push answer: a range is not a pair of whole numbers")
        start, end = row
        if type(start) is not int or type(end) is not int or start <= at:
            raise FormatError("push answer: ranges are not whole numbers, or not in order")
        spans.append(Span(start, end))
        at = end
    return tuple(spans)


def _digest(raw: dict[str, JSON], key: str, subject: str) -> bytes:
    text = raw[key]
    if not isinstance(text, str) or not _HEX32.fullmatch(text):
        raise FormatError(f"{subject}: {key} is not 64 lowercase hex digits")
    return bytes.fromhex(text)
