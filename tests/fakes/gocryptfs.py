"""gocryptfs volumes written by our own code, and the real program where it is installed."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from strongroom.host.gocryptfs.creating import create
from strongroom.host.run import Completed, run
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from strongroom.sealed.gocryptfs.config import DEFAULT_FLAGS, Flag, Settings, make
from strongroom.sealed.gocryptfs.content import BLOCK
from strongroom.sealed.gocryptfs.kdf import Scrypt
from strongroom.sealed.gocryptfs.names import DIRIV, LONG_SUFFIX, ZERO_DIRIV
from tests import need
from tests.fakes.sealed import counter, pattern

MASTER_KEY: Final = sha256(b"master key").digest()
PASSWORD: Final = b"correct horse"
MIB: Final = 1 << 20
TIME: Final = 1_700_000_000
NAMES: Final = frozenset({Flag.DIR_IV, Flag.EME_NAMES, Flag.LONG_NAMES, Flag.RAW_64})

# Options of `gocryptfs -init`, and the flags they stand for. The rest are volumes of older versions: 2.3 reads them all
# and makes them no more.
KINDS: Final[Mapping[str, tuple[tuple[str, ...] | None, frozenset[Flag], int]]] = {
    "aes-gcm": ((), DEFAULT_FLAGS, 255),
    "xchacha": (("-xchacha",), DEFAULT_FLAGS - {Flag.GCM_IV_128} | {Flag.XCHACHA}, 255),
    "aes-siv": (("-aessiv",), DEFAULT_FLAGS | {Flag.AES_SIV}, 255),
    "deterministic-names": (("-deterministic-names",), DEFAULT_FLAGS - {Flag.DIR_IV}, 255),
    "long-name-max": (("-longnamemax", "100"), DEFAULT_FLAGS | {Flag.LONG_NAME_MAX}, 100),
    "plaintext-names": (("-plaintextnames",), DEFAULT_FLAGS - NAMES | {Flag.PLAINTEXT_NAMES}, 255),
    "padded-base64": (None, DEFAULT_FLAGS - {Flag.RAW_64}, 255),
    "without-hkdf": (None, DEFAULT_FLAGS - {Flag.HKDF}, 255),
    "without-hkdf-siv": (None, DEFAULT_FLAGS - {Flag.HKDF, Flag.RAW_64} | {Flag.AES_SIV}, 255),
    "without-long-names": (None, DEFAULT_FLAGS - {Flag.LONG_NAMES}, 255),
}


def settings(kind: str = "aes-gcm") -> Settings:
    """Of a volume under MASTER_KEY and PASSWORD."""
    _, flags, long_name_max = KINDS[kind]
    return make(
        master_key=MASTER_KEY,
        password=PASSWORD,
        scrypt=Scrypt(salt=bytes(range(32)), n=1024),
        nonce=b"n" * (16 if Flag.HKDF in flags else 12),
        flags=flags,
        long_name_max=long_name_max,
    )


@dataclass(frozen=True)
class Written:
    """A volume on disk. `stored` says where each name went."""

    path: Path
    ciphers: Ciphers
    stored: dict[str, Path]


CONTENTS: Final[dict[str, bytes]] = {
    "empty": b"",
    "one": b"1",
    "config.json": b'{"hidden_size": 8}',
    "d/under": pattern(BLOCK - 1, 1),
    "d/block": pattern(BLOCK, 2),
    "d/over": pattern(BLOCK + 1, 3),
    "d/e/mib": pattern(MIB, 4),
    "d/e/more": pattern(2 * MIB + 3 * BLOCK + 5, 5),
    "ünï cødé": b"name",
}
LONG_NAMES: Final = {"d/" + "l" * 176: b"long", "d/" + "m" * 255: b"longest"}
LINKS: Final = {"latest": "d/block", "d/up": "../one", "d/dir": "e"}


def write_volume(
    path: Path,
    kind: str = "aes-gcm",
    *,
    contents: Mapping[str, bytes] = CONTENTS,
    links: Mapping[str, str] = LINKS,
) -> Written:
    """A volume of this kind that holds just that."""
    entropy, made = counter(), settings(kind)
    create(path, made, diriv=entropy(16))
    ciphers, stored = Ciphers.make(MASTER_KEY, made), {"": path}

    def place(name: str) -> Path:
        above, _, last = name.rpartition("/")
        if above not in stored:
            place(above).mkdir()
            if made.directory_ivs:
                (stored[above] / os.fsdecode(DIRIV)).write_bytes(entropy(16))
        diriv = ZERO_DIRIV
        if made.directory_ivs:
            diriv = (stored[above] / os.fsdecode(DIRIV)).read_bytes()
        put = ciphers.names.store(last.encode(), diriv)
        stored[name] = stored[above] / os.fsdecode(put.on_disk)
        if put.long is not None:
            Path(f"{stored[name]}{os.fsdecode(LONG_SUFFIX)}").write_bytes(put.long)
        return stored[name]

    for name, content in contents.items():
        place(name).write_bytes(sealed(ciphers, content, entropy(16), entropy))
        os.utime(stored[name], (TIME, TIME))
        stored[name].chmod(0o644)
    for name, target in links.items():
        on_disk = ciphers.attributes.seal_target(target.encode(), entropy(ciphers.content.nonce_size))
        place(name).symlink_to(os.fsdecode(on_disk))
    return Written(path, ciphers, stored)


def sealed(ciphers: Ciphers, content: bytes, file_id: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """An object that holds `content`."""
    if not content:
        return b""
    cipher = ciphers.content
    nonces = b"".join(entropy(cipher.nonce_size) for _ in range(-(-len(content) // BLOCK)))
    out = bytearray(cipher.cipher_size(len(content)) - cipher.header_size)
    cipher.seal_blocks(file_id, 0, memoryview(content), memoryview(out), nonces)
    return cipher.new_header(file_id) + bytes(out)


def program() -> Path:
    """The real gocryptfs."""
    found = shutil.which("gocryptfs")
    need(found, "no gocryptfs: apt install gocryptfs")
    return Path(str(found))


def password_file(at: Path) -> Path:
    file = at / "password"
    file.write_bytes(PASSWORD + b"\n")
    file.chmod(0o600)
    return file


def init(cipher: Path, *options: str) -> None:
    """A volume made by the real program, under PASSWORD."""
    cipher.mkdir(exist_ok=True)
    secret = password_file(cipher.parent)
    run([program(), "-q", "-init", "-scryptn", "10", "-passfile", secret, *options, cipher])


def fsck(cipher: Path) -> Completed:
    """What the real program's check says."""
    secret = password_file(cipher.parent)
    return run([program(), "-fsck", "-passfile", secret, cipher], check=False)


@contextmanager
def mounted(cipher: Path, *options: str) -> Iterator[Path]:
    """The volume through the real program."""
    at = cipher.parent / "mounted"
    at.mkdir(exist_ok=True)
    run([program(), "-q", "-passfile", password_file(cipher.parent), *options, cipher, at])
    try:
        yield at
    finally:
        run(["umount", at])
