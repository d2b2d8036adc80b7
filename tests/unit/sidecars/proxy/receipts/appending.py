"""Appends leaves to a log for ever and tells of each; run by test_killed.py, which kills it."""

import sys
from pathlib import Path

from sidecars.proxy.receipts.stored import StoredLog
from strongroom.receipts.tree import leaf_hash

KEY = bytes(32)
HEIGHT = 4


def opened(directory: Path) -> StoredLog:
    return StoredLog(directory, key=KEY, fresh=bytes(16), keep=40, height=HEIGHT)


def leaf(index: int) -> bytes:
    return leaf_hash(index.to_bytes(8, "big"))


def main(directory: Path) -> None:
    log = opened(directory)
    while True:
        log.append(leaf(log.tree.size))
        sys.stdout.write(f"{log.tree.size}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
