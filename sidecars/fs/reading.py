"""The way of a range: load the chunks that cover it, open each, and give out the slice."""

from collections.abc import Mapping
from typing import Final

from sidecars.fs.operations import Range
from sidecars.fs.protocol.frames import MAX_READ
from strongroom.errors import ProtocolError, VerifyError
from strongroom.host.sealed_tree import StoredObject
from strongroom.sealed.chunks import TAG_SIZE

_PAGE: Final = 4096


class ChunkReader:
    """Reads with buffers made once. For one thread: what read() gives out is valid until the next read()."""

    def __init__(self, objects: Mapping[bytes, StoredObject], *, chunk_size: int) -> None:
        self._objects = objects
        self._chunk_size = chunk_size
        most, stride = (
            MAX_READ // chunk_size + 1,
            chunk_size + _PAGE,
        )  # page-aligned slots, room for a tag behind
        sealed = memoryview(bytearray(most * stride))
        self._plain = memoryview(bytearray(most * chunk_size))
        self._slots = [sealed[n * stride : n * stride + chunk_size + TAG_SIZE] for n in range(most)]
        self._outs = [self._plain[n * chunk_size : (n + 1) * chunk_size] for n in range(most)]

    def read(self, wanted: Range) -> memoryview:
        """The plaintext of a range inside one file, every chunk of it verified.

        Raises VerifyError naming object and chunk, MachineError when the store fails: then nothing is given out.
        """
        if not 0 < wanted.size <= MAX_READ:
            raise ProtocolError(f"fuse: read of {wanted.size} bytes, want 1..{MAX_READ}")
        stored = self._objects[wanted.file.object_id]
        first, start = divmod(wanted.offset, self._chunk_size)
        count = -(-(start + wanted.size) // self._chunk_size)
        slots, outs = self._slots[:count], self._outs[:count]
        if (length := stored.chunking.length(first + count - 1)) < self._chunk_size:
            slots[-1], outs[-1] = slots[-1][: length + TAG_SIZE], outs[-1][:length]
        stored.load(first, [slot[:-TAG_SIZE] for slot in slots])
        try:
            for index, (slot, out) in enumerate(zip(slots, outs, strict=True), first):
                stored.open(index, slot, out)
        except VerifyError:
            self._plain[:] = bytes(len(self._plain))  # GCM writes before it knows
            raise
        return self._plain[start : start + wanted.size]
