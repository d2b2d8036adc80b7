"""Vectors of the sealed format: a small tree, what is in it, and changes of it that every reader must reject.

    tests/vectors/sealed/tree/          MANIFEST, tags/, objects/
    tests/vectors/sealed/vector.json    key, epoch, root, contents, cases

A case is a list of steps on a copy of the tree, and where a reader refuses: "open", or the paths whose reading fails.
With "root": "own" the reader is given the digest of the changed MANIFEST, as by a sealer who means harm; such cases
whose MANIFEST is written whole were sealed with the key. `python -m tests.vectors.sealed_cases` writes the files anew.
"""

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.sealed.header import SIZE, ManifestHeader
from strongroom.sealed.keys import VolumeKeys
from strongroom.wire.canonical import pack_json
from tests import ROOT
from tests.fakes.sealed import MODEL_KEY, counter, pattern, seal

FOLDER: Final = ROOT / "tests/vectors/sealed"
EPOCH: Final = 2
CHUNK: Final = 64 * 1024
CONTENTS: Final = {
    "config.json": b'{"hidden_size": 8}',
    "empty": b"",
    "exact.bin": pattern(CHUNK, 3),
    "model.safetensors": pattern(CHUNK + 17, 1),
    "tokenizer/vocab.txt": b"a\nb\n",
}
LINKS: Final = {"latest": "model.safetensors", "tokenizer/up.json": "../config.json"}
TIME: Final = 1_700_000_000_123_456_789  # nanoseconds

Step = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What is done to the tree, and how it has to end."""

    name: str
    steps: tuple[Step, ...]
    error: str  # class of strongroom.errors
    says: str  # how the sentence begins
    own_root: bool = False
    epoch: int = EPOCH
    key: str = MODEL_KEY.hex()
    reading: tuple[str, ...] = ()  # files whose reading fails; none: the tree does not open

    @classmethod
    def of(cls, value: dict[str, Any]) -> Self:
        return cls(**value | {"steps": tuple(value["steps"]), "reading": tuple(value["reading"])})

    def apply(self, tree: Path) -> bytes:
        """Change a copy of the tree; the result is the root a reader is given."""
        root = _root(tree)
        for step in self.steps:
            _STEPS[step["do"]](tree / step["file"], step)
        return _root(tree) if self.own_root else root


@dataclass(frozen=True)
class Vector:
    root: bytes
    epoch: int
    model_key: bytes
    contents: dict[str, str]  # path -> SHA-256
    links: dict[str, str]
    cases: tuple[Case, ...]

    @classmethod
    def load(cls) -> Self:
        value = json.loads((FOLDER / "vector.json").read_text())
        return cls(
            root=bytes.fromhex(value["root"]),
            epoch=value["epoch"],
            model_key=bytes.fromhex(value["model_key"]),
            contents=value["contents"],
            links=value["links"],
            cases=tuple(map(Case.of, value["cases"])),
        )


def make_tree(at: Path) -> Path:
    """The vector's tree, sealed anew under `at`: the same bytes each time."""
    source = at / "source"
    for path, content in CONTENTS.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
        (source / path).chmod(0o644)
    for path, target in LINKS.items():
        (source / path).symlink_to(target)
    (source / "tokenizer").chmod(0o755)
    for path in (*CONTENTS, *LINKS, "tokenizer"):
        os.utime(source / path, ns=(TIME, TIME), follow_symlinks=False)
    seal(source, at / "tree", epoch=EPOCH)
    return at / "tree"


def _root(tree: Path) -> bytes:
    return sha256((tree / "MANIFEST").read_bytes()).digest()


# Steps


def _write(path: Path, step: Step) -> None:
    path.write_bytes(base64.b64decode(step["content"]))


def _flip(path: Path, step: Step) -> None:
    data = bytearray(path.read_bytes())
    data[step["bit"] // 8] ^= 1 << step["bit"] % 8
    path.write_bytes(data)


def _patch(path: Path, step: Step) -> None:
    data = bytearray(path.read_bytes())
    content = bytes.fromhex(step["content"])
    data[step["offset"] : step["offset"] + len(content)] = content
    path.write_bytes(data)


def _resize(path: Path, step: Step) -> None:
    os.truncate(path, step["size"])


def _remove(path: Path, _: Step) -> None:
    path.unlink()


def _link(path: Path, step: Step) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _swap(path: Path, step: Step) -> None:
    """Exchange `length` bytes at two offsets, of one file or of two."""
    other = path if "other" not in step else path.parents[1] / step["other"]
    one, two, length = step["offset"], step["other_offset"], step["length"]
    first = bytearray(path.read_bytes())
    second = first if other == path else bytearray(other.read_bytes())
    first[one : one + length], second[two : two + length] = (
        second[two : two + length],
        first[one : one + length],
    )
    path.write_bytes(first)
    if other != path:
        other.write_bytes(second)


_STEPS: Final[dict[str, Callable[[Path, Step], None]]] = {
    "write": _write,
    "flip": _flip,
    "patch": _patch,
    "resize": _resize,
    "remove": _remove,
    "link": _link,
    "swap": _swap,
}


# How the cases are made


def make_cases(tree: Path) -> Iterator[Case]:
    """Every case, for the tree that make_tree() makes."""
    manifest = (tree / "MANIFEST").read_bytes()
    (tags,) = (tree / "tags").iterdir()
    header = ManifestHeader.parse(manifest[:SIZE])
    keys = VolumeKeys(model_key=MODEL_KEY, salt=header.salt)
    body = json.loads(AESGCM(keys.manifest_key).decrypt(bytes(12), manifest[SIZE:], manifest[:SIZE]))
    objects = {e["path"]: f"objects/{e['object_id']}" for e in body["entries"] if e["type"] == "object"}
    yield from _about_the_header(manifest)
    yield from _about_tags(f"tags/{tags.name}", tags.read_bytes(), objects)
    yield from _about_objects(objects)
    yield from _about_bodies(header, body)


def _about_the_header(manifest: bytes) -> Iterator[Case]:
    def patched(name: str, offset: int, content: bytes, error: str, says: str, **more: Any) -> Case:
        step = {"do": "patch", "file": "MANIFEST", "offset": offset, "content": content.hex()}
        return Case(name, (step,), error, says, **{"own_root": True} | more)

    yield patched("another magic", 0, b"SRSEALEE", "FormatError", "manifest: magic is")
    yield patched("version 1", 8, b"\0\1", "FormatError", "manifest: version is 1, want 2")
    yield patched("version 3", 8, b"\0\3", "FormatError", "manifest: version is 3, want 2")
    yield patched("suite 0", 10, b"\0", "FormatError", "manifest: suite is 0")
    yield patched("suite 2", 10, b"\2", "FormatError", "manifest: suite is 2")
    yield patched("chunks too small", 11, b"\x0f", "FormatError", "manifest: chunk_log2 is 15")
    yield patched("chunks too large", 11, b"\x15", "FormatError", "manifest: chunk_log2 is 21")
    for offset in range(12, 16):
        yield patched(f"reserved byte {offset}", offset, b"\1", "FormatError", "manifest: bytes [12:16]")
    yield patched("epoch 0", 16, bytes(8), "FormatError", "manifest: epoch is 0")
    yield patched(
        "epoch 2^53", 16, b"\0\x20" + bytes(6), "FormatError", "manifest: epoch is 9007199254740992"
    )
    says = "manifest: epoch is 1, want 2"
    yield patched("an older epoch", 16, (1).to_bytes(8, "big"), "PolicyError", says)
    says = "manifest: tag does not verify"
    yield patched("an epoch raised", 16, (3).to_bytes(8, "big"), "VerifyError", says, epoch=3)
    yield patched("other chunks", 11, b"\x11", "VerifyError", says)
    yield patched("another volume id", 24, bytes(16), "VerifyError", says)
    says = "manifest: key commitment does not match"
    yield patched("another salt", 40, bytes(32), "VerifyError", says)
    yield patched("another commitment", 72, bytes(32), "VerifyError", says)
    yield Case("another key", (), "VerifyError", says, key=bytes(32).hex())
    yield Case("a later epoch wanted", (), "PolicyError", "manifest: epoch is 2, want 3", epoch=3)
    for length in (0, 103, 104, 120):
        step = {"do": "resize", "file": "MANIFEST", "size": length}
        yield Case(f"manifest of {length} bytes", (step,), "FormatError", "manifest: got", own_root=True)
    for name, size in (("cut", len(manifest) - 1), ("longer", len(manifest) + 1)):
        step = {"do": "resize", "file": "MANIFEST", "size": size}
        yield Case(f"manifest {name}", (step,), "VerifyError", "manifest: root digest is")
        yield Case(
            f"manifest {name}, own root",
            (step,),
            "VerifyError",
            "manifest: tag does not verify",
            own_root=True,
        )
    for place, byte in (("first", SIZE), ("middle", len(manifest) // 2), ("tag", len(manifest) - 1)):
        step = {"do": "flip", "file": "MANIFEST", "bit": 8 * byte + 3}
        yield Case(f"body flipped: {place}", (step,), "VerifyError", "manifest: root digest is")
        yield Case(
            f"body flipped: {place}, own root",
            (step,),
            "VerifyError",
            "manifest: tag does not verify",
            own_root=True,
        )
    yield Case("no manifest", ({"do": "remove", "file": "MANIFEST"},), "VerifyError", "manifest: missing")
    linked = ({"do": "link", "file": "MANIFEST"},)
    yield Case("manifest is a link", linked, "MachineError", "manifest: too many levels of symbolic links")


def _about_tags(name: str, tags: bytes, objects: dict[str, str]) -> Iterator[Case]:
    del objects
    for at in range(0, 8 * len(tags), 97):
        yield Case(
            f"tags: bit {at}", ({"do": "flip", "file": name, "bit": at},), "VerifyError", "tags: digest is"
        )
    for size in (0, 16, len(tags) - 1, len(tags) + 1, len(tags) + 16):
        says = f"tags: {size} bytes, want "
        step = {"do": "resize", "file": name, "size": size}
        yield Case(f"tags of {size} bytes", (step,), "VerifyError", says)
    swap = {"do": "swap", "file": name, "offset": 0, "other_offset": 16, "length": 16}
    yield Case("two tags swapped", (swap,), "VerifyError", "tags: digest is")
    yield Case("no tags", ({"do": "remove", "file": name},), "VerifyError", "tags: missing")
    linked = ({"do": "link", "file": name},)
    yield Case("tags are a link", linked, "MachineError", "tags: too many levels of symbolic links")


def _about_objects(objects: dict[str, str]) -> Iterator[Case]:
    for path, name in objects.items():
        size, says = len(CONTENTS[path]), f"object {name.removeprefix('objects/')}: "
        yield Case(f"{path}: gone", ({"do": "remove", "file": name},), "VerifyError", f"{says}missing")
        for other in sorted({0, CHUNK - 1, size - 1, size + 1, size + CHUNK}):
            step = {"do": "resize", "file": name, "size": other}
            yield Case(f"{path}: {other} bytes", (step,), "VerifyError", f"{says}{other} bytes, want {size}")
        linked = ({"do": "link", "file": name},)
        yield Case(f"{path}: a link", linked, "MachineError", f"{says}too many levels")
        for at in sorted({0, 1, CHUNK // 2, CHUNK - 1, CHUNK, size - 1} & {*range(size)}):
            step = {"do": "flip", "file": name, "bit": 8 * at + at % 8}
            bad = f"{says}chunk {at // CHUNK}: tag does not verify"
            yield Case(f"{path}: byte {at} flipped", (step,), "VerifyError", bad, reading=(path,))
        zeroed = {"do": "patch", "file": name, "offset": 0, "content": "00" * 64}
        bad = f"{says}chunk 0: tag does not verify"
        yield Case(f"{path}: zeros", (zeroed,), "VerifyError", bad, reading=(path,))
    one, two = objects["exact.bin"], objects["model.safetensors"]
    swap = {"do": "swap", "file": one, "other": two, "offset": 0, "other_offset": 0, "length": CHUNK}
    both = ("exact.bin", "model.safetensors")
    yield Case("chunks of two objects swapped", (swap,), "VerifyError", "object ", reading=both)


def _about_bodies(header: ManifestHeader, body: dict[str, Any]) -> Iterator[Case]:
    """Bodies that are properly sealed, and break a rule."""
    entropy = counter()

    def sealed(name: str, says: str, content: bytes, error: str = "FormatError") -> Case:
        salt = entropy(32)  # the nonce is fixed: each body has a key of its own
        keys = VolumeKeys(model_key=MODEL_KEY, salt=salt)
        clear = replace(header, salt=salt, commitment=keys.commitment).pack()
        data = clear + AESGCM(keys.manifest_key).encrypt(bytes(12), content, clear)
        step = {"do": "write", "file": "MANIFEST", "content": base64.b64encode(data).decode()}
        return Case(name, (step,), error, says, own_root=True)

    def edited(name: str, says: str, edit: Callable[[Any], object]) -> Case:
        value = json.loads(json.dumps(body))
        edit(value)
        return sealed(name, says, pack_json(value))

    at = {entry["path"]: number for number, entry in enumerate(body["entries"])}

    def member(name: str, says: str, path: str, /, **members: Any) -> Case:
        return edited(name, says, lambda value: value["entries"][at[path]].update(members))

    text = pack_json(body)
    large, small, link, folder = "model.safetensors", "config.json", "latest", "tokenizer"
    other = body["entries"][at["exact.bin"]]
    yield sealed("body is no JSON", "manifest: not JSON", text[:-1])
    yield sealed("something behind the body", "manifest: not JSON", text + b"{}")
    yield sealed("a member twice", "manifest: key 'name' appears twice", b'{"name":"a",' + text[1:])
    fraction = text.replace(b'"mode":420', b'"mode":420.0', 1)
    yield sealed("a fraction", "manifest: number 420.0, want a whole number", fraction)
    yield sealed("body is a list", "manifest: got list", b"[]")
    yield edited("an unknown member", "manifest: unknown member 'more'", lambda value: value.update(more=1))
    yield edited("no name", "manifest: name is NoneType", lambda value: value.pop("name"))
    yield edited("a name with a space", "manifest: name is 'a b'", lambda value: value.update(name="a b"))
    yield edited("no digest of tags", "manifest: tags_sha256 is", lambda value: value.pop("tags_sha256"))
    yield edited("order", "manifest: path ", lambda value: value["entries"].reverse())
    twice = "manifest: path 'tokenizer/vocab.txt' is out of order or there twice"
    yield edited("a path twice", twice, lambda value: value["entries"].append(value["entries"][-1]))
    orphan = "manifest: path 'tokenizer/up.json' lies in no directory"
    yield edited("no parent", orphan, lambda value: value["entries"].pop(at[folder]))
    yield member("type", "manifest: type is 'fifo'", small, type="fifo")
    yield member("a file as a directory", "manifest: entry: unknown member", small, type="directory")
    for bad, why in (("..", "has a part '..'"), ("/x", "has a part ''"), ("a\nb", "has a control character")):
        yield member(f"path {bad!r}", f"manifest: path {bad!r} {why}", small, path=bad)
    yield member("setuid", "manifest: 'config.json': mode is 2541", small, mode=0o4755)
    yield member("mtime", "manifest: 'config.json': mtime is -1", small, mtime=-1)
    yield member("nanos", "manifest: 'config.json': nanos is 1000000000", small, nanos=10**9)
    yield member("padding in content", "manifest: content", small, content="eyJ4IjogMX0=")
    yield member("object too small", "manifest: 'model.safetensors': size is 65535", large, size=CHUNK - 1)
    yield member("object too large", "manifest: 'model.safetensors': size is", large, size=(1 << 48) + 1)
    yield member("upper case", "manifest: entry: key is not 64 lowercase hex", large, key="AB" * 32)
    yield member("a short key", "manifest: entry: key is not 64 lowercase hex", large, key="ab" * 31)
    yield member(
        "object id with a path", "manifest: entry: object_id is not", large, object_id="../" + "0" * 29
    )
    yield member(
        "one object twice", "manifest: object id is there twice", large, object_id=other["object_id"]
    )
    yield member("one key twice", "manifest: key of an object is there twice", large, key=other["key"])
    yield member("a file id", "manifest: entry: unknown member 'file_id'", large, file_id="00" * 16)
    for target, why in (("/etc/passwd", "want a relative target"), ("../x", "which leaves the tree")):
        says = f"manifest: link 'latest' points to {target!r}, {why}"
        yield member(f"link to {target}", says, link, target=target)
    yield member(
        "link to nothing", "manifest: link 'latest' points to 'none', which is not", link, target="none"
    )
    yield member("link to itself", "manifest: link 'latest' needs more than 40", link, target="latest")
    more = {"size": 2 * CHUNK + 1}
    yield replace(member("another size", "tags: 48 bytes, want 64", large, **more), error="VerifyError")
    missing = f"object {'00' * 16}: missing"
    yield replace(member("another object", missing, large, object_id="00" * 16), error="VerifyError")
    wrong = f"object {body['entries'][at[large]]['object_id']}: chunk 0: tag does not verify"
    case = replace(member("another key for an object", wrong, large, key="00" * 32), error="VerifyError")
    yield replace(case, reading=(large,))


def write(folder: Path = FOLDER) -> None:
    """The files of the vector, made anew."""
    with tempfile.TemporaryDirectory() as work:
        tree = make_tree(Path(work))
        value = {
            "format": "strongroom sealed tree, version 2",
            "made_by": "python -m tests.vectors.sealed_cases",
            "model_key": MODEL_KEY.hex(),
            "epoch": EPOCH,
            "root": _root(tree).hex(),
            "contents": {path: sha256(content).hexdigest() for path, content in CONTENTS.items()},
            "links": LINKS,
            "cases": [vars(case) for case in make_cases(tree)],
        }
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copytree(tree, folder / "tree")
        (folder / "vector.json").write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    write()
