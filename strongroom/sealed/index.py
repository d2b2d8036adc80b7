"""What a sealed tree consists of, in the clear: the names and sizes of its files, beside MANIFEST as INDEX.

MANIFEST names the objects, but only to who has the model key. Whoever merely carries the tree from store to store
needs the names too, and a store shows them anyway. An index is a hint and no more: it is signed by nobody, it is not
read when a tree is mounted, and what it leaves out or makes up is found by the reader that has the key.
Source: docs/formats/sealed.md.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.sealed.manifest import MAX_ENTRIES, MAX_SIZE, SealedFile
from strongroom.sealed.volume import MAX_MANIFEST
from strongroom.wire.canonical import JSON, pack_json

INDEX: Final = "INDEX"
VERSION: Final = "strongroom/sealed-index/v1"
MAX_INDEX: Final = 51 * MAX_ENTRIES + 512  # bytes: an object takes 36 and at most 15 digits of its size
MAX_TAGS: Final = 16 << 32  # bytes
_FILE_IN: Final = rb'\{"sha256":"([0-9a-f]{64})","size":(0|[1-9][0-9]{0,14})\}'
_HEAD: Final = re.compile(rb'\{"manifest":' + _FILE_IN + rb',"objects":\{')
_ENTRY: Final = re.compile(rb'"([0-9a-f]{32})":(0|[1-9][0-9]{0,14})(,?)')
_TAIL: Final = re.compile(rb'\},"tags":' + _FILE_IN + rb',"version":"' + VERSION.encode() + rb'"\}')
_OBJECT: Final = re.compile(r"[0-9a-f]{32}")
_FILE: Final = re.compile(r"MANIFEST|INDEX|tags/[0-9a-f]{64}|objects/[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The files of one sealed tree. `root` is the digest of its MANIFEST, and so says which tree."""

    root: bytes
    manifest_size: int
    tags_sha256: bytes
    tags_size: int
    objects: Mapping[str, int]  # object id in hex -> bytes

    def __post_init__(self) -> None:
        for what, digest in (("manifest", self.root), ("tags", self.tags_sha256)):
            if len(digest) != 32:
                raise FormatError(f"index: digest of {what} is {len(digest)} bytes, want 32")
        if len(self.objects) > MAX_ENTRIES:
            raise FormatError(f"index: {len(self.objects)} objects, want at most {MAX_ENTRIES}")
        _check_size("manifest", self.manifest_size, MAX_MANIFEST)
        _check_size("tags", self.tags_size, MAX_TAGS)
        for name, size in self.objects.items():
            if not _OBJECT.fullmatch(name):
                raise FormatError(f"index: object is named {name[:64]!a}, want 32 lowercase hex digits")
            _check_size(f"object {name}", size, MAX_SIZE)

    @classmethod
    def of(
        cls, *, root: bytes, manifest_size: int, tags: tuple[bytes, int], files: Iterable[SealedFile]
    ) -> Self:
        """The index of a tree that was sealed or opened: `tags` are the digest and the size of its tags."""
        objects = {file.object_name: file.size for file in files}
        return cls(
            root=root, manifest_size=manifest_size, tags_sha256=tags[0], tags_size=tags[1], objects=objects
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the canonical form; FormatError for any other bytes.

        There is one way to write an index, so it is read by its grammar: what a store makes up costs no more than its
        length.
        """
        if len(data) > MAX_INDEX:
            raise FormatError(f"index: {len(data)} bytes, want at most {MAX_INDEX}")
        if (head := _HEAD.match(data)) is None:
            raise FormatError(f"index: not in canonical form (RFC 8785) of {VERSION}")
        objects: dict[str, int] = {}
        at, before = head.end(), b""
        while entry := _ENTRY.match(data, at):
            name, size, end = entry.groups()
            if name <= before:
                raise FormatError(f"index: object {name.decode()} stands behind {before.decode()}")
            objects[name.decode()], before, at = int(size), name, entry.end()
            if not end:
                break
        tail = _TAIL.fullmatch(data, at)
        if tail is None or data[at - 1 : at] == b",":
            raise FormatError(f"index: not in canonical form (RFC 8785) from byte {at} on")
        root, manifest_size, tags, tags_size = *head.groups(), *tail.groups()
        return cls(
            root=bytes.fromhex(root.decode()),
            manifest_size=int(manifest_size),
            tags_sha256=bytes.fromhex(tags.decode()),
            tags_size=int(tags_size),
            objects=objects,
        )

    def pack(self) -> bytes:
        objects: dict[str, JSON] = dict(self.objects)
        return pack_json(
            {
                "manifest": {"sha256": self.root.hex(), "size": self.manifest_size},
                "objects": objects,
                "tags": {"sha256": self.tags_sha256.hex(), "size": self.tags_size},
                "version": VERSION,
            }
        )

    @property
    def tags_name(self) -> str:
        """The tags' file name inside the tree."""
        return f"tags/{self.tags_sha256.hex()}"

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return self.manifest_size + self.tags_size + sum(self.objects.values())


def is_name(text: str) -> bool:
    """Whether a file of a sealed tree may have this name. All others lead elsewhere, or nowhere."""
    return _FILE.fullmatch(text) is not None


def _check_size(subject: str, size: int, most: int) -> None:
    if not 0 <= size <= most:
        raise FormatError(f"index: size of {subject} is {size}, want 0..{most}")
