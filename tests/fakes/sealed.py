"""Sealed trees made the same way every time: a counter instead of randomness."""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from strongroom.host.sealed.sealing import Manner, Plan, Release, seal_tree
from strongroom.host.sealed.tree import SealedTree

MODEL_KEY: Final = bytes(range(32))
CHUNK: Final = 64 * 1024


def counter(label: bytes = b"fake entropy") -> Callable[[int], bytes]:
    """Stands in for secrets.token_bytes: never the same bytes twice, always the same sequence for a label."""
    numbers = itertools.count()
    return lambda length: sha256(b"%s %d" % (label, next(numbers))).digest()[:length]


def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes in which no two chunks are alike."""
    block = b"".join(sha256(b"%d %d" % (seed, n)).digest() for n in range(128))
    return b"".join((n.to_bytes(8, "big") + block[8:]) for n in range(-(-length // len(block))))[:length]


@dataclass(frozen=True)
class SealedFixture:
    """A sealed tree on disk, and what was in it."""

    path: Path
    root: bytes
    epoch: int
    contents: dict[str, bytes]
    objects: dict[str, Path]  # plaintext path -> object file

    @property
    def tags(self) -> Path:
        """The file of tags; there is one."""
        (path,) = (self.path / "tags").iterdir()
        return path


def make_source(at: Path) -> dict[str, bytes]:
    """A small model directory: three objects, inline files, folders and links."""
    contents = {
        "model-1.safetensors": pattern(5 * CHUNK + 100, 1),
        "model-2.safetensors": pattern(5 * CHUNK + 100, 2),
        "exact.bin": pattern(4 * CHUNK, 3),
        "config.json": b'{"hidden_size": 8}',
        "empty": b"",
        "tokenizer/vocab.txt": b"a\nb\n",
    }
    for path, content in contents.items():
        (at / path).parent.mkdir(parents=True, exist_ok=True)
        (at / path).write_bytes(content)
        os.utime(at / path, (1_700_000_000, 1_700_000_000))
        (at / path).chmod(0o644)
    (at / "latest").symlink_to("model-1.safetensors")
    (at / "tokenizer" / "up.json").symlink_to("../config.json")
    (at / "tokenizer").chmod(0o755)
    for path in ("latest", "tokenizer/up.json"):
        os.utime(at / path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    os.utime(at / "tokenizer", (1_700_000_000, 1_700_000_000))
    return contents


def seal(source: Path, dest: Path, *, name: str = "tiny", epoch: int = 1, chunk_log2: int = 16) -> bytes:
    """Seal `source` under MODEL_KEY; the result is the root digest."""
    entropy = counter()
    roots: list[bytes] = []
    sealed = seal_tree(
        Plan.make(source, name=name, dereference=False, entropy=entropy),
        dest,
        Release(model_key=MODEL_KEY, epoch=epoch, chunk_log2=chunk_log2),
        entropy=entropy,
        keep=roots.append,
        manner=Manner(workers=2),
    )
    assert roots == [sealed.root]
    return sealed.root


def make_sealed(tmp_path: Path, *, epoch: int = 1, chunk_log2: int = 16) -> SealedFixture:
    """The model of make_source(), sealed. Its ids are those that counter() gives in the order of the paths."""
    source, dest = tmp_path / f"source-{epoch}", tmp_path / f"sealed-{epoch}"
    source.mkdir()
    contents = make_source(source)
    root = seal(source, dest, epoch=epoch, chunk_log2=chunk_log2)
    with SealedTree.open(dest, model_key=MODEL_KEY, epoch=epoch, root=root) as tree:
        objects = {one.file.path: dest / "objects" / one.file.object_name for one in tree.objects}
    return SealedFixture(dest, root, epoch, contents, objects)
