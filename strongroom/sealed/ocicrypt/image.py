"""What an image consists of: descriptors, and the manifest that lists them (OCI image specification 1.1)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, pack_json, parse_json

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
REF_NAME: Final = "org.opencontainers.image.ref.name"
MAX_DOCUMENT: Final = 4 << 20  # bytes of an index, a manifest or a config
MAX_LAYERS: Final = 256
MAX_BLOB: Final = 1 << 48  # bytes
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A blob: what it is, which it is, how long."""

    media_type: str
    digest: str  # sha256: and 64 hex digits
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: str | None = None  # os/architecture, in an index

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        raw = _object(value, at)
        kind, digest, size = raw.get("mediaType"), raw.get("digest"), raw.get("size")
        if not isinstance(kind, str) or len(kind) > 255:
            raise FormatError(f"{at}: has no mediaType")
        check_digest(digest, at)
        if type(size) is not int or not 0 <= size <= MAX_BLOB:
            raise FormatError(f"{at}: size is {str(size)[:40]}, want 0..{MAX_BLOB}")
        notes = _object(raw.get("annotations") or {}, f"{at}: annotations")
        texts = {name: text for name, text in notes.items() if isinstance(text, str)}
        if len(texts) != len(notes):
            raise FormatError(f"{at}: an annotation is not text")
        platform = raw.get("platform")
        place = None
        if isinstance(platform, dict):
            place = f"{platform.get('os')}/{platform.get('architecture')}"
        return cls(media_type=kind, digest=str(digest), size=size, annotations=texts, platform=place)


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest. What is not read here is kept as it is."""

    raw: Mapping[str, JSON]
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        raw = _document(data, "image manifest")
        if raw.get("mediaType", MANIFEST) != MANIFEST:
            raise FormatError(f"image manifest: mediaType is {str(raw['mediaType'])[:80]!a}, want {MANIFEST}")
        layers = raw.get("layers")
        if not isinstance(layers, list) or not 1 <= len(layers) <= MAX_LAYERS:
            raise FormatError(f"image manifest: want 1..{MAX_LAYERS} layers")
        config = Descriptor.from_json(raw.get("config"), "image manifest: config")
        return cls(
            raw,
            config,
            tuple(Descriptor.from_json(row, f"image manifest: layer {n}") for n, row in enumerate(layers)),
        )

    def with_layers(self, layers: Sequence[Descriptor]) -> bytes:
        """The manifest of the same image with its layers in another form."""
        rows: list[JSON] = [_pack(layer) for layer in layers]
        return pack_json({**self.raw, "layers": rows})


def manifests(data: bytes) -> tuple[Descriptor, ...]:
    """What an index lists."""
    rows = _document(data, "image index").get("manifests")
    if not isinstance(rows, list) or len(rows) > MAX_LAYERS:
        raise FormatError(f"image index: want a list of at most {MAX_LAYERS} manifests")
    return tuple(Descriptor.from_json(row, f"image index: manifest {n}") for n, row in enumerate(rows))


def pack_index(manifest: Descriptor) -> bytes:
    """An index of one image."""
    return pack_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [_pack(manifest)]})


def diff_ids(config: bytes) -> tuple[str, ...]:
    """The digests of all layers as plain tar files, from the image's configuration."""
    rootfs = _object(_document(config, "image config").get("rootfs"), "image config: rootfs")
    rows = rootfs.get("diff_ids")
    if not isinstance(rows, list):
        raise FormatError("image config: rootfs has no diff_ids")
    for row in rows:
        check_digest(row, "image config: diff_id")
    return tuple(map(str, rows))


def check_digest(value: JSON, at: str) -> None:
    """Raise FormatError unless this is a SHA-256 digest as images write it."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise FormatError(f"{at}: digest is {str(value)[:80]!a}, want sha256: and 64 lowercase hex digits")


def _pack(one: Descriptor) -> dict[str, JSON]:
    notes: dict[str, JSON] = dict(one.annotations)
    row: dict[str, JSON] = {"mediaType": one.media_type, "digest": one.digest, "size": one.size}
    return {**row, "annotations": notes} if notes else row


def _document(data: bytes, subject: str) -> dict[str, JSON]:
    return _object(parse_json(data, subject, max_bytes=MAX_DOCUMENT, max_depth=32), subject)


def _object(value: JSON, at: str) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise FormatError(f"{at}: want an object")
    return value
