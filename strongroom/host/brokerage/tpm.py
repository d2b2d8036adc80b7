"""A root key that only this machine's TPM gives back: sealed by tpm2-tools under the storage hierarchy.

The file is canonical JSON of the object's public and private area, both of which only this TPM can use. With PCRs,
the TPM unseals only while they hold what they held at sealing. TPM2TOOLS_TCTI names another TPM than the machine's.
On a TPM that is a chip of its own the key crosses a bus; where that matters, seal a credential with systemd-creds.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.host.brokerage.sealing import ROOT_BYTES
from strongroom.host.run import run
from strongroom.host.secret import Secret
from strongroom.wire.canonical import b64, pack_json, parse_json, unb64

MAX_OBJECT: Final = 8 << 10  # bytes
_TCTI: Final = "TPM2TOOLS_TCTI"
_SUBJECT: Final = "root.tpm"


def parse_pcrs(text: str) -> tuple[int, ...]:
    """The PCRs in "7+11", in order; none in ""."""
    parts = text.split("+") if text else []
    if not all(part.isascii() and part.isdigit() and int(part) < 24 for part in parts):
        raise ConfigError(f"root key: got PCRs {text[:60]!r}, want such as 7+11, each 0..23")
    return tuple(sorted({int(part) for part in parts}))


def seal_to_tpm(key: Secret, pcrs: tuple[int, ...]) -> bytes:
    """The content of a root.tpm file. MachineError without a TPM, or without tpm2-tools."""
    with _room() as room:
        _primary(room)
        create: list[str | Path] = ["tpm2_create", "-Q", "-C", room / "primary", "-g", "sha256", "-i", "-"]
        create += ["-u", room / "public", "-r", room / "private", "-a", _attributes(pcrs)]
        if pcrs:
            _tool(["tpm2_createpolicy", "-Q", "--policy-pcr", "-l", _listed(pcrs), "-L", room / "policy"])
            create += ["-L", room / "policy"]
        _tool(create, key.reveal())
        public, private = (room / "public").read_bytes(), (room / "private").read_bytes()
    return pack_json({"public": b64(public), "private": b64(private)})


def unseal_with_tpm(sealed: bytes, pcrs: tuple[int, ...]) -> Secret:
    """The key. MachineError where this TPM does not give it, in the words of tpm2-tools."""
    value = parse_json(sealed, _SUBJECT, max_bytes=MAX_OBJECT)
    if not isinstance(value, dict) or value.keys() != {"public", "private"}:
        raise FormatError(f"{_SUBJECT}: want an object of public and private")
    with _room() as room:
        for name, text in value.items():
            (room / name).write_bytes(unb64(text if isinstance(text, str) else "?", _SUBJECT))
        _primary(room)
        load: list[str | Path] = ["tpm2_load", "-Q", "-C", room / "primary"]
        _tool([*load, "-u", room / "public", "-r", room / "private", "-c", room / "object"])
        allowed = ["-p", f"pcr:{_listed(pcrs)}"] if pcrs else []
        key = Secret(_tool(["tpm2_unseal", "-Q", "-c", room / "object", *allowed]))
    if len(key) != ROOT_BYTES:
        raise FormatError(f"{_SUBJECT}: holds {len(key)} bytes, want {ROOT_BYTES}")
    return key


def _primary(room: Path) -> None:
    _tool(["tpm2_createprimary", "-Q", "-C", "o", "-g", "sha256", "-G", "ecc", "-c", room / "primary"])


def _attributes(pcrs: tuple[int, ...]) -> str:
    # without userwithauth the empty password does not do in place of the policy
    return "fixedtpm|fixedparent|noda" + ("|adminwithpolicy" if pcrs else "|userwithauth")


def _listed(pcrs: tuple[int, ...]) -> str:
    return "sha256:" + ",".join(map(str, pcrs))


def _tool(argv: list[str | Path], content: bytes | None = None) -> bytes:
    tcti = os.environ.get(_TCTI)
    try:
        return run(argv, input=content, env={_TCTI: tcti} if tcti else None, timeout=30.0).stdout
    except MachineError as error:
        raise MachineError(f"root key: {error}") from None


@contextmanager
def _room() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="strongroom-tpm-"
    ) as name:  # 0700; nothing secret is written here
        yield Path(name)
