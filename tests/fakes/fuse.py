"""Frames as the kernel would write them."""

import struct

from sidecars.fs.protocol.frames import Opcode, Request


def request(opcode: Opcode | int, body: bytes = b"", *, node: int = 1, unique: int = 77) -> Request:
    header = struct.pack("=IIQQIIIHH", 40 + len(body), opcode, unique, node, 0, 0, 0, 0, 0)
    return Request.parse(memoryview(header + body))


def read(opcode: Opcode, node: int, offset: int, size: int) -> Request:
    return request(opcode, struct.pack("=QQIIQII", 0, offset, size, 0, 0, 0, 0), node=node)
