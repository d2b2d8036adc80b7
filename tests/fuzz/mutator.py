"""Damage as it happens and as it is made: cuts, flips, absurd lengths, repeated and swapped parts, doubled keys."""

import random
import re
from collections.abc import Iterator, Sequence
from typing import Final

_NUMBERS: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_MEMBER: Final = re.compile(rb'"[^"\\]{1,40}"\s*:\s*("[^"\\]{0,60}"|-?\d+|true|false|null)')
_MOST: Final = 1 << 17  # bytes


def mutations(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged specimens; the same for the same arguments."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            data = chance.choice(_WAYS)(data, chance, seeds)
        yield bytes(data[:_MOST])


def _cut(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    del seeds
    return data[: chance.randint(0, len(data))]


def _flip(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    del seeds
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def _number(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    del seeds
    size = chance.choice((1, 2, 3, 4))
    at = chance.randint(0, max(0, len(data) - size))
    value = chance.choice(_NUMBERS) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, chance.choice(("little", "big")))
    return data


def _append(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    del seeds
    return data + chance.choice((b"\0", b"\xff", b"\0" * 64, chance.randbytes(chance.randint(1, 32))))


def _repeat(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    del seeds
    start = chance.randint(0, len(data))
    part = data[start : start + chance.randint(1, 256)]
    return data[:start] + part * chance.choice((2, 3, 50)) + data[start:]


def _remove(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    del seeds
    start = chance.randint(0, len(data))
    del data[start : start + chance.randint(1, 64)]
    return data


def _splice(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    other = chance.choice(seeds)
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


def _double_member(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    """A JSON object that says one thing twice."""
    del seeds
    members = list(_MEMBER.finditer(data[:_MOST]))
    if not members:
        return data
    member = chance.choice(members)
    return data[: member.end()] + b"," + member[0] + data[member.end() :]


def _nest(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    del seeds
    deep = chance.choice((10, 1000, 30_000))
    return bytearray(b"[" * deep) + data + b"]" * deep


_WAYS: Final = (
    _cut,
    _flip,
    _flip,
    _flip,
    _number,
    _number,
    _append,
    _repeat,
    _remove,
    _splice,
    _double_member,
    _nest,
)
