"""Small images in OCI layouts, made here byte by byte."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest_of(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def entry(name: str, content: bytes | None = None, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a tar file: a file with this content, or what `type` says."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content or b""), 0o644, 1_700_000_000
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content or b""


def tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in entries:
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def make_layout(
    at: Path,
    layers: Iterable[bytes],
    *,
    tag: str = "v1",
    zipped: bool = True,
    config: dict[str, object] | None = None,
    diff_ids: list[str] | None = None,
) -> str:
    """An image of plain tar files as layers; the result is its digest."""
    blobs = at / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes) -> dict[str, object]:
        (blobs / sha256(content).hexdigest()).write_bytes(content)
        return {"digest": digest_of(content), "size": len(content)}

    rows, ids = [], []
    for layer in layers:
        ids.append(digest_of(layer))
        packed = gzip.compress(layer, mtime=0) if zipped else layer
        rows.append({"mediaType": LAYER + ("+gzip" if zipped else ""), **put(packed)})
    about = {
        "architecture": "amd64",
        "os": "linux",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": ids if diff_ids is None else diff_ids},
    }
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", **put(json.dumps(about).encode())}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": rows}
    named = {
        "mediaType": MANIFEST,
        **put(json.dumps(manifest).encode()),
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    (at / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (at / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return str(named["digest"])
