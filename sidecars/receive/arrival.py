"""One manifest's bytes on their way into a sealed tree: sealed as they come, so that none is ever on disk in the clear.

Bytes come in the order of the manifest and are taken once. A connection may be cut anywhere: the arrival goes on with
the very next byte. When the process is killed, files that were whole are kept and the one that was not begins anew,
under a new key: no key ever seals two versions of a chunk.
"""

from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from sidecars.receive.standing import Tree, cut_journal, keeping, sweep
from strongroom.errors import (
    ConfigError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    VerifyError,
)
from strongroom.host.sealed.blocks import Room, bounds
from strongroom.host.sealed.destination import Destination, JournalFile, machine_errors
from strongroom.host.sealed.plain import Entropy
from strongroom.host.sealed.sealing import Release, commit_tree
from strongroom.host.sealed.writer import ObjectWriter
from strongroom.push.content import Content, Span
from strongroom.push.manifest import PlainFile, PushManifest
from strongroom.sealed.journal import JournalWriter
from strongroom.sealed.keys import Octets
from strongroom.sealed.manifest import Entry, InlineFile, Manifest, SealedFile

_SPARE: Final = 1 << 20  # bytes kept free for the manifest, and a thousandth for tags and journal
_FLUSH: Final = 64  # blocks (MiB) after which what was written is to be on disk


class Arrival:
    """Used by one thread at a time. What failed stays failed: drop() it."""

    def __init__(
        self,
        place: Destination,
        held: ExitStack,
        manifest: PushManifest,
        release: Release,
        entropy: Entropy,
    ) -> None:
        self.manifest: Final = manifest
        self._place, self._held, self._release, self._entropy = place, held, release, entropy
        self._content: Final = Content([file.size for file in manifest.files])
        self._room: Final = Room(release.chunk_log2)
        self._entries: dict[str, Entry] = {}  # by path, as they will stand in the tree
        self._waiting: deque[int] = deque()  # numbers of the files that are not whole, the current one first
        self._file: _Arriving | None = None  # the current one, once its first byte came
        self._journal: JournalFile | None = None
        self._tree: Tree | None = None
        self._root: bytes | None = None
        self._failure: StrongroomError | None = None

    @classmethod
    def begin(cls, dest: Path, manifest: PushManifest, *, model_key: Octets, entropy: Entropy) -> Self:
        """Make ready for the bytes of a manifest. What is there under this key is used, everything else removed.

        Nobody else writes to the place until the end of it: finish(), drop() or close(). PolicyError when a newer
        release is there, ConfigError for a place with files of others, MachineError when there is no room.
        """
        release = Release(model_key=model_key, epoch=manifest.epoch)
        with ExitStack() as stack:
            place = stack.enter_context(Destination.hold(dest))
            if foreign := place.foreign():
                raise ConfigError(f"{dest}: holds {foreign[0]!a}, want nothing but a sealed tree")
            tree = Tree.find(place, model_key)
            if tree is not None and tree.header.epoch >= manifest.epoch and not tree.is_of(manifest):
                raise PolicyError(
                    f"epoch is {manifest.epoch}, and {tree.header.epoch} is here: want it to grow"
                )
            arrival = cls(place, stack.pop_all(), manifest, release, entropy)
        arrival._tree = tree
        try:
            with machine_errors(dest):
                arrival._prepare(model_key)
        except BaseException:
            arrival.drop()
            raise
        return arrival

    def _prepare(self, model_key: Octets) -> None:
        place, tree = self._place, self._tree
        if tree is not None and tree.is_of(self.manifest):
            if place.cut:  # between its commit and its end
                place.settle(tree.index)
            self._root = tree.root
            return
        place.furnish()
        found = (*cut_journal(place, model_key).finished, *(tree.finished if tree else ()))
        entries, kept = keeping(self.manifest.sealed(self._entropy), found, place)
        self._entries = {entry.path: entry for entry in entries}
        if tree is None:
            place.disown()
        sweep(place, {*kept, *(tree.object_ids if tree else ())}, tree.tags_name if tree else "")
        self._waiting.extend(
            number
            for number, file in enumerate(self.manifest.files)
            if not isinstance(entry := self._entries[file.path], SealedFile) or entry.object_id not in kept
        )
        wanted = sum(len(span) for span in self.missing)
        place.check_space(wanted + wanted // 1000 + _SPARE)
        writer = JournalWriter(
            model_key=model_key, salt=self._entropy(32), chunk_log2=self._release.chunk_log2
        )
        self._journal = JournalFile(place, writer, kept)
        self._pass_empty()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self._content.size

    @property
    def next(self) -> int:
        """The first byte that is missing; when none is, the size."""
        if not self._waiting:
            return self.size
        return self._content.start(self._waiting[0]) + (self._file.received if self._file else 0)

    @property
    def missing(self) -> tuple[Span, ...]:
        """What is still to come, in order."""
        spans = self._content.spans(self._waiting)
        return (Span(self.next, spans[0].end), *spans[1:]) if spans else ()

    @property
    def arrived(self) -> int:
        return self.size - sum(len(span) for span in self.missing)

    def take(self, data: memoryview) -> None:
        """The next bytes. VerifyError when a file that became whole is another than the manifest names."""
        if self._failure is not None:
            raise self._failure
        try:
            with machine_errors(self._place.path):
                self._take(data)
        except StrongroomError as error:
            self._failure = error
            raise

    def _take(self, data: memoryview) -> None:
        while data:
            if not self._waiting:
                raise ProtocolError("push: more bytes than are missing")
            if self._file is None:
                self._file = self._open(self.manifest.files[self._waiting[0]])
            data = data[self._file.take(data) :]
            if self._file.whole:
                self._end(self._file)

    def _open(self, file: PlainFile) -> "_Arriving":
        entry = self._entries[file.path]
        if isinstance(entry, InlineFile):
            return _Small(file, entry)
        if not isinstance(entry, SealedFile) or self._journal is None:
            raise ProtocolError("push: bytes for what is no file")
        log2 = self._release.chunk_log2
        writer = ObjectWriter(self._place.objects, entry, chunk_log2=log2, record=self._journal.record)
        writer.begin()
        return _Large(file, entry, writer, self._room)

    def _end(self, file: "_Arriving") -> None:
        entry = file.finish()
        self._entries[entry.path] = entry
        self._file = None
        self._waiting.popleft()
        self._pass_empty()

    def _pass_empty(self) -> None:
        """Files without a byte are whole at once."""
        while self._waiting and not self.manifest.files[self._waiting[0]].size:
            self._end(self._open(self.manifest.files[self._waiting[0]]))

    def finish(self) -> bytes:
        """Commit the tree; the result is its root digest. ProtocolError while bytes are missing."""
        if self._failure is not None:
            raise self._failure
        if self._root is not None:
            return self._root
        if self._waiting or self._journal is None:
            raise ProtocolError(f"push: {self.size - self.arrived} bytes are missing")
        entries, finished = tuple(self._entries.values()), self._journal.finished
        tags = b"".join(finished[e.object_id].tags for e in entries if isinstance(e, SealedFile))
        manifest = Manifest(name=self.manifest.name, entries=entries, tags_sha256=sha256(tags).digest())
        with machine_errors(self._place.path):
            self._root = commit_tree(
                self._place,
                self._release,
                manifest,
                tags,
                volume_id=self._tree.header.volume_id if self._tree else None,
                entropy=self._entropy,
            )
            sweep(self._place, {file.object_id for file in manifest.objects}, manifest.tags_sha256.hex())
            self.close()
        return self._root

    def drop(self) -> None:
        """Leave the place as it was found: without a byte of this push. After its commit nothing is taken back."""
        with self._held, machine_errors(self._place.path):
            if isinstance(self._file, _Large):
                self._file.drop()
            self._let_go()
            if self._root is None and self._place.furnished and not self._is_committed():
                tree = self._tree
                sweep(self._place, tree.object_ids if tree else (), tree.tags_name if tree else "")
                self._place.give_up()

    def _is_committed(self) -> bool:
        """Whether it failed behind its commit: then the tree is there, and whoever offers it again finds it so."""
        return self._place.root not in (None, self._tree.root if self._tree else None)

    def close(self) -> None:
        """Let go of the place. A push that is not finished can be gone on with by another process."""
        with self._held:
            self._let_go()

    def _let_go(self) -> None:
        if isinstance(self._file, _Large):
            self._file.close()
        if self._journal is not None:
            self._journal.close()
        self._file = self._journal = None


class _Small:
    """A file that is kept in the manifest."""

    def __init__(self, file: PlainFile, entry: InlineFile) -> None:
        self._plain, self._entry, self._bytes = file, entry, bytearray()

    @property
    def received(self) -> int:
        return len(self._bytes)

    @property
    def whole(self) -> bool:
        return self.received == self._plain.size

    def take(self, data: memoryview) -> int:
        piece = data[: self._plain.size - self.received]
        self._bytes += piece
        return len(piece)

    def finish(self) -> InlineFile:
        _check_digest(self._plain, sha256(self._bytes).digest())
        return replace(self._entry, content=bytes(self._bytes))


class _Large:
    """A file that becomes an object, block by block through the one room there is."""

    def __init__(self, file: PlainFile, entry: SealedFile, writer: ObjectWriter, room: Room) -> None:
        self._plain, self._entry, self._writer, self._room = file, entry, writer, room
        self._digest = sha256()
        self.received = 0
        self._block = self._filled = 0

    @property
    def whole(self) -> bool:
        return self._block == self._writer.blocks

    def take(self, data: memoryview) -> int:
        _, length = bounds(self._plain.size, self._block)
        piece = data[: length - self._filled]
        self._room.plain[self._filled : self._filled + len(piece)] = piece
        self._filled += len(piece)
        self.received += len(piece)
        if self._filled == length:
            self._digest.update(self._room.plain[:length])
            self._writer.write(self._block, self._room)
            self._block, self._filled = self._block + 1, 0
            if self._block % _FLUSH == 0:
                self._writer.flush()
        return len(piece)

    def finish(self) -> SealedFile:
        digest = self._digest.digest()
        _check_digest(self._plain, digest)
        self._writer.finish(digest)
        return self._entry

    def drop(self) -> None:
        self._writer.drop()

    def close(self) -> None:
        self._writer.close()


_Arriving = _Small | _Large


def _check_digest(file: PlainFile, found: bytes) -> None:
    if found != file.sha256:
        raise VerifyError(f"{file.path}: sha256 is {found.hex()}, want {file.sha256.hex()}")
