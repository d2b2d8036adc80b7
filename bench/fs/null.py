"""Our daemon without its cipher: what the kernel, the store and Python cost it. `python -m bench.fs.null`.

It takes the credentials of sidecars.fs and serves the ciphertext as if it were the content. For the bench alone.
"""

import sys

from sidecars.fs.__main__ import main
from strongroom.sealed import chunks


class NoCipher:
    """In place of AESGCM: copies what would have been decrypted, and believes every tag."""

    def __init__(self, key: object) -> None:
        del key

    def decrypt_into(self, _nonce: object, sealed: memoryview, _aad: object, out: memoryview) -> int:
        out[:] = sealed[: len(out)]
        return len(out)


if __name__ == "__main__":
    vars(chunks)["AESGCM"] = NoCipher
    sys.exit(main())
