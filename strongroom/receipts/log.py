"""The log of a door's receipts: signed heads, and proofs against them (docs/formats/receipt-log.md).

A leaf is the hash of what a receipt's signature is over. The log holds nothing else, so it tells nobody anything of
what was asked, and a log that is shown whole tells only how often.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from strongroom.errors import FormatError, VerifyError
from strongroom.receipts import signing, tree
from strongroom.receipts.receipt import Receipt
from strongroom.receipts.signing import Signer
from strongroom.wire.canonical import JSON, b64u, pack_json, unb64u

HEAD_VERSION: Final = "strongroom/log-head/v1"
ID: Final = 16  # bytes, random, of a log that was begun anew
_LABEL: Final = b"strongroom/log-head/v1\0"
_HEX16: Final = re.compile(r"[0-9a-f]{32}")
_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_MAX_SIZE: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    log: bytes  # the log's id
    size: int  # leaves
    root: bytes
    time: int  # unix seconds, of the machine's own clock

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        raw = _members(value, "head", {"version", "log", "size", "root", "time"})
        if raw["version"] != HEAD_VERSION:
            raise FormatError(f"head: version is {str(raw['version'])[:64]!r}, want {HEAD_VERSION!r}")
        found = cls(
            log=_hex(raw["log"], "head.log", _HEX16),
            size=_whole(raw["size"], "head.size"),
            root=_hex(raw["root"], "head.root", _HEX32),
            time=_whole(raw["time"], "head.time"),
        )
        if not found.size and found.root != tree.EMPTY:
            raise FormatError("head: of no leaves, and its root is not that of an empty tree")
        return found

    def to_json(self) -> JSON:
        return {
            "version": HEAD_VERSION,
            "log": self.log.hex(),
            "size": self.size,
            "root": self.root.hex(),
            "time": self.time,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    head: Head
    signature: bytes
    key: bytes  # the receipt key

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        raw = _members(value, "signed head", {"head", "signature", "key"})
        return cls(
            head=Head.from_json(raw["head"]),
            signature=_base64(raw["signature"], "signed head.signature"),
            key=_base64(raw["key"], "signed head.key"),
        )

    def to_json(self) -> JSON:
        return {"head": self.head.to_json(), "signature": b64u(self.signature), "key": b64u(self.key)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """That one receipt is in the log."""

    head: SignedHead
    index: int
    path: tuple[bytes, ...]

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        raw = _members(value, "proof", {"head", "index", "path"})
        return cls(
            head=SignedHead.from_json(raw["head"]),
            index=_whole(raw["index"], "proof.index"),
            path=_path(raw["path"]),
        )

    def to_json(self) -> JSON:
        path: list[JSON] = [node.hex() for node in self.path]
        return {"head": self.head.to_json(), "index": self.index, "path": path}

    def require(self, receipt: Receipt, *, key: bytes) -> Head:
        """The head, once it is found to be signed by `key` and to hold this receipt. Raises VerifyError."""
        head = verify_head(self.head, key=key)
        leaf = tree.leaf_hash(receipt.signed_part)
        tree.require_inclusion(leaf, self.index, head.size, self.path, head.root)
        return head


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """That a log went on from one size to another, and lost or changed nothing."""

    first: int
    second: int
    path: tuple[bytes, ...]

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        raw = _members(value, "consistency", {"first", "second", "path"})
        return cls(
            first=_whole(raw["first"], "consistency.first"),
            second=_whole(raw["second"], "consistency.second"),
            path=_path(raw["path"]),
        )

    def to_json(self) -> JSON:
        path: list[JSON] = [node.hex() for node in self.path]
        return {"first": self.first, "second": self.second, "path": path}

    def require(self, first: Head, second: Head) -> None:
        """Raise VerifyError unless `second` is what became of `first`."""
        if first.log != second.log:
            raise VerifyError("log: the heads are of two logs, which cannot be compared")
        if (self.first, self.second) != (first.size, second.size):
            raise VerifyError(
                f"log: the proof is of {self.first} and {self.second} leaves, want {first.size} and {second.size}"
            )
        tree.require_consistency(first.size, first.root, second.size, second.root, self.path)


def sign_head(head: Head, signer: Signer) -> SignedHead:
    return SignedHead(head=head, signature=signer.sign(_message(head)), key=signer.key)


def verify_head(signed: SignedHead, *, key: bytes) -> Head:
    """The head, once `key` is found to have signed it. Raises VerifyError, FormatError for a key of another form."""
    if signed.key != key:
        raise VerifyError("head: signed by another key than the receipt")
    signing.verify(key, signed.signature, _message(signed.head), subject="head")
    return signed.head


def _message(head: Head) -> bytes:
    return _LABEL + pack_json(head.to_json())


def _members(value: JSON, subject: str, keys: set[str]) -> Mapping[str, JSON]:
    if not isinstance(value, dict) or value.keys() != keys:
        raise FormatError(f"{subject}: want an object with exactly {', '.join(sorted(keys))}")
    return value


def _path(value: JSON) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > tree.MAX_PATH:
        raise FormatError(f"proof.path: want a list of at most {tree.MAX_PATH} hashes")
    return tuple(_hex(node, "proof.path", _HEX32) for node in value)


def _hex(value: JSON, subject: str, form: re.Pattern[str]) -> bytes:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise FormatError(f"{subject}: want lowercase hex of one length")
    return bytes.fromhex(value)


def _base64(value: JSON, subject: str) -> bytes:
    if not isinstance(value, str):
        raise FormatError(f"{subject}: got {type(value).__name__}, want base64url text")
    return unb64u(value, subject)


def _whole(value: JSON, subject: str) -> int:
    if type(value) is not int or not 0 <= value < _MAX_SIZE:  # bool is an int: type() on purpose
        raise FormatError(f"{subject}: want a whole number 0..2^53-1")
    return value
