"""The layers of an image, one upon the other, as a tree that a service can have as its root.

    DEST/           mode 0700: set-user-id files of an image are of use inside its root and nowhere else
    DEST/rootfs/    the tree
    DEST/config     the image's configuration, as it is: what to run, as whom, with which environment

Whiteouts are carried out, devices are refused: a service gets those of its own. Owners are kept where we are root.
Source: OCI image specification 1.1, layer.md.
"""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Final, cast

from strongroom.errors import ConfigError, FormatError, MachineError, VerifyError
from strongroom.host.images.layers import Layer, Progress
from strongroom.host.images.layout import PIECE, PLATFORM, Layout
from strongroom.host.images.tree import Parts, Tree, in_words, parts_of
from strongroom.host.removal import remove, undone
from strongroom.keys.jwk import PrivateKey
from strongroom.sealed.ocicrypt.image import diff_ids

ROOT: Final = "rootfs"
CONFIG: Final = "config"
MAX_FILES: Final = 1 << 21  # of one layer
MAX_TIME: Final = 1 << 34  # seconds before and after 1970, as ext4 has them
MAX_OWNER: Final = (1 << 32) - 1  # which stands for nobody
_PARTIAL: Final = ".partial"
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_XATTR: Final = "SCHILY.xattr."
_KEPT_XATTRS: Final = ("user.", "security.capability")


@dataclass(frozen=True, slots=True)
class Unpacked:
    layers: int
    files: int


def unpack_image(
    layout: Layout,
    digest: str,
    dest: Path,
    *,
    key: PrivateKey | None,
    platform: str = PLATFORM,
    progress: Progress,
) -> Unpacked:
    """Make DEST of the image with this digest, decrypting what is encrypted.

    Every layer is read twice: all of it is verified before any of it is looked at. DEST appears when everything held,
    and not at all otherwise. Raises VerifyError for a layer that is not the one the image names, FormatError for one
    that leads outside or holds a device.
    """
    image = layout.image(digest, platform=platform)
    config = layout.document(image.config.digest)
    wanted = diff_ids(config)
    if len(wanted) != len(image.layers):
        raise FormatError(f"image config: {len(wanted)} diff_ids for {len(image.layers)} layers")
    layers = [Layer.open(layout, stored, key) for stored in image.layers]
    for layer in layers:
        layer.tar()  # a kind that we cannot read is said before anything is read
        layer.verify(progress)
    partial = dest.with_name(dest.name + _PARTIAL)
    _make(dest, partial)
    files = 0
    with (
        undone(lambda: remove(partial), str(partial)),
        in_words(str(partial)),
        Tree.open(partial / ROOT) as tree,
    ):
        for layer, diff_id in zip(layers, wanted, strict=True):
            files += _apply(layer, diff_id, tree)
        (partial / CONFIG).write_bytes(config)
        os.rename(partial, dest)
    return Unpacked(len(layers), files)


def _make(dest: Path, partial: Path) -> None:
    if dest.is_symlink() or dest.exists():
        raise ConfigError(f"{dest}: exists, want a new directory")
    try:
        remove(partial)
        partial.mkdir(mode=0o700, parents=True)
        (partial / ROOT).mkdir(mode=0o755)
        (partial / ROOT).chmod(0o755)
    except OSError as error:
        raise MachineError(f"{partial}: {(error.strerror or 'failed').lower()}") from error


def _apply(layer: Layer, diff_id: str, tree: Tree) -> int:
    stream = _Hashed(layer.tar())
    work = _LayerWork(tree, f"layer {layer.stored.digest}")
    try:
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", bufsize=PIECE) as archive:
            for member in archive:
                work.add(archive, member)
        work.settle()
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError) as error:
        raise FormatError(f"{work.name}: not a tar file ({type(error).__name__})") from None
    while stream.read(PIECE):
        pass
    if (found := stream.digest) != diff_id:
        raise VerifyError(f"{work.name}: unpacks to {found}, want {diff_id}")
    return work.count


class _Hashed(io.RawIOBase):
    """Pieces as a file to read, and the digest of all that was read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")
        self._digest = sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        taken = bytearray()
        while size < 0 or len(taken) < size:
            if not self._rest:
                piece = next(self._pieces, b"")
                if not piece:
                    break
                self._digest.update(piece)
                self._rest = memoryview(piece)
            part = self._rest if size < 0 else self._rest[: size - len(taken)]
            taken += part
            self._rest = self._rest[len(part) :]
        return bytes(taken)

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


class _LayerWork:
    """One layer being applied. What it has added itself, its own whiteouts leave alone."""

    def __init__(self, tree: Tree, name: str) -> None:
        self.name: Final = name
        self.count = 0
        self._tree = tree
        self._added = set[Parts]()
        self._directories = dict[Parts, tarfile.TarInfo]()  # their modes and times come last
        self._owners: Final = os.geteuid() == 0

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if (count := self.count + 1) > MAX_FILES:
            raise FormatError(f"{self.name}: more than {MAX_FILES} files")
        self.count = count
        try:
            parts = self._tree.resolve(parts_of(member.name))
            if parts and parts[-1].startswith(_WHITEOUT):
                self._remove(parts)
                return
            with in_words(member.name[:120].encode("ascii", "backslashreplace").decode()):
                self._make(archive, member, parts)
        except FormatError as error:
            raise FormatError(f"{self.name}: {error}") from None
        self._added.update(parts[:end] for end in range(1, len(parts) + 1))

    def settle(self) -> None:
        """Give directories their modes and times, the innermost first."""
        for parts, member in sorted(self._directories.items(), key=lambda item: -len(item[0])):
            status = self._tree.status(parts)
            if status is not None and stat.S_ISDIR(status.st_mode):  # a later entry may have replaced it
                with self._tree.folder((*parts, ""), make=False) as fd:
                    self._finish(fd, member)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parts: Parts) -> None:
        _check_numbers(member)
        if not parts and not member.isdir():
            raise FormatError("the top of the image is no directory")
        if member.isdir():
            if parts:
                self._tree.make_directory(parts)
            self._directories[parts] = member
        elif member.issym():
            self._tree.make_link(parts, _link_target(member.linkname))
            self._own_link(parts, member)
        elif member.islnk():
            self._tree.make_hard_link(parts, self._tree.resolve(parts_of(member.linkname)))
        elif member.isfifo():
            self._tree.make_fifo(parts)
        elif member.isreg():
            self._make_file(archive, member, parts)
        elif member.isdev():
            raise FormatError(f"{member.name[:120]!a} is a device, want none in an image")
        else:
            raise FormatError(
                f"{member.name[:120]!a} is of type {member.type!a}, want a file, directory or link"
            )

    def _make_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parts: Parts) -> None:
        source = archive.extractfile(member)
        with self._tree.make_file(parts) as fd:
            left = member.size
            while source is not None and left:
                piece = source.read(min(PIECE, left))
                if not piece:
                    raise FormatError(f"{member.name[:120]!a} ends early")
                left -= len(piece)
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
            self._finish(fd, member)

    def _finish(self, fd: int, member: tarfile.TarInfo) -> None:
        if self._owners:
            os.fchown(fd, member.uid, member.gid)
        for name, value in member.pax_headers.items():
            if name.startswith(_XATTR) and name.removeprefix(_XATTR).startswith(_KEPT_XATTRS):
                with suppress(OSError):  # a file system without them is none to refuse
                    os.setxattr(fd, name.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))
        os.fchmod(fd, member.mode & 0o7777)
        moment = int(member.mtime)
        os.utime(fd, (moment, moment))

    def _own_link(self, parts: Parts, member: tarfile.TarInfo) -> None:
        if self._owners:
            with self._tree.folder(parts, make=False) as folder:
                os.chown(parts[-1], member.uid, member.gid, dir_fd=folder, follow_symlinks=False)

    def _remove(self, parts: Parts) -> None:
        name = parts[-1]
        if name == _OPAQUE:
            doomed = [(*parts[:-1], child) for child in self._tree.children(parts[:-1])]
        elif name.startswith(_WHITEOUT + _WHITEOUT):
            return  # other marks of aufs say nothing about files
        else:
            leaf = name.removeprefix(_WHITEOUT)
            if leaf in ("", ".", ".."):
                raise FormatError(f"whiteout {name!a} is of no name")
            doomed = [(*parts[:-1], leaf)]
        for one in doomed:
            self._hide(one)

    def _hide(self, parts: Parts) -> None:
        """Remove what lower layers have there; a directory that this layer adds to keeps what it added."""
        doomed = [parts]
        while doomed:
            if (one := doomed.pop()) in self._added:
                doomed += [(*one, child) for child in self._tree.children(one)]
            else:
                self._tree.remove(one)


def _check_numbers(member: tarfile.TarInfo) -> None:
    """A pax header may say any number, and infinity too."""
    if not abs(member.mtime) <= MAX_TIME:
        raise FormatError(f"{member.name[:120]!a} is of time {member.mtime:g}, want at most {MAX_TIME}")
    for what, number in (("owner", member.uid), ("group", member.gid)):
        if not 0 <= number < MAX_OWNER:
            raise FormatError(f"{member.name[:120]!a} has {what} {number}, want 0..{MAX_OWNER - 1}")
    if member.size < 0:
        raise FormatError(f"{member.name[:120]!a} has {member.size} bytes")


def _link_target(target: str) -> str:
    if not target or "\0" in target or len(os.fsencode(target)) >= 4096:
        raise FormatError(f"link has the target {target[:80]!a}")
    return target
