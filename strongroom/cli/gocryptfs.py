"""`strongroom gocryptfs`: make, check, pin and read gocryptfs volumes."""

import argparse
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from strongroom.broker.resource import VolumeKey
from strongroom.cli.progress import Progress, size
from strongroom.cli.secretfile import HELP, read_master_key, read_password, write_new
from strongroom.cli.terminal import one_line
from strongroom.errors import ConfigError, FormatError, MachineError, VerifyError
from strongroom.host.gocryptfs.checking import Findings, check_volume
from strongroom.host.gocryptfs.creating import create
from strongroom.host.gocryptfs.directory import read_settings
from strongroom.host.gocryptfs.pinning import pin_volume
from strongroom.host.gocryptfs.volume import GocryptfsVolume
from strongroom.host.sealed.keyfile import read_volume_key
from strongroom.host.stored import MAX_READ, Item
from strongroom.sealed.gocryptfs.config import DEFAULT_FLAGS, LONGEST_NAME, Flag, make, unlock
from strongroom.sealed.gocryptfs.kdf import KEY_SIZE, SALT_SIZE, Scrypt
from strongroom.sealed.gocryptfs.names import DIRIV_SIZE
from strongroom.sealed.gocryptfs.side import (
    MAX_SIDE,
    SIDE_SALT_SIZE,
    VOLUME_ID_SIZE,
    SideManifest,
    side_root,
)
from strongroom.sealed.header import MAX_EPOCH
from strongroom.sealed.manifest import check_name

_CIPHERS: Final = {
    "aes-gcm": DEFAULT_FLAGS,
    "aes-siv": DEFAULT_FLAGS | {Flag.AES_SIV},
    "xchacha": DEFAULT_FLAGS - {Flag.GCM_IV_128} | {Flag.XCHACHA},
}
_NAMES: Final = frozenset({Flag.DIR_IV, Flag.EME_NAMES, Flag.LONG_NAMES, Flag.RAW_64})


def add_parser(subparsers: Any) -> None:
    volume = subparsers.add_parser("gocryptfs", help=__doc__.partition("`: ")[2].strip(), description=__doc__)
    verbs = volume.add_subparsers(metavar="ACTION", required=True)
    _add_create(verbs.add_parser("create", help="make a new, empty volume"))

    pin = verbs.add_parser("pin", help="write the side manifest of a volume, and the key that opens both")
    _add_volume(pin)
    pin.add_argument("--side-out", required=True, type=Path, metavar="FILE", help="new file, outside of DIR")
    pin.add_argument("--name", required=True, help="the model's name, as clients will ask for it")
    pin.add_argument("--epoch", required=True, type=int, help="release number, larger than any before it")
    pin.add_argument(
        "--key-out", required=True, type=Path, metavar="FILE", help="new file for the volume key"
    )
    pin.add_argument(
        "--allow-holes", action="store_true", help="pin holes too: zeros that nothing vouches for yet"
    )
    pin.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_secrets(pin, pinned=False)
    pin.set_defaults(action=_pin)

    check = verbs.add_parser(
        "check", help="look at every block and every name; each fault is a line on stderr"
    )
    _add_volume(check)
    _add_secrets(check, pinned=True)
    check.add_argument(
        "--reverse", action="store_true", help="DIR is a copy of what `gocryptfs -reverse` shows"
    )
    check.add_argument("--json", action="store_true", help="print the result as JSON")
    check.set_defaults(action=_check)

    listing = verbs.add_parser("ls", help="list what a volume holds")
    _add_volume(listing)
    _add_secrets(listing, pinned=True)
    listing.add_argument("--json", action="store_true", help="print a JSON object for each name")
    listing.set_defaults(action=_ls)

    cat = verbs.add_parser("cat", help="write the content of one file to standard output")
    _add_volume(cat)
    cat.add_argument("path", metavar="PATH", help="in clear, relative to the top of the volume")
    _add_secrets(cat, pinned=True)
    cat.set_defaults(action=_cat)


def run(args: argparse.Namespace) -> int:
    code: int = args.action(args)
    return code


def _add_volume(parser: Any) -> None:
    parser.add_argument("volume", type=Path, metavar="DIR", help="the cipher directory")


def _add_secrets(parser: Any, *, pinned: bool) -> None:
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument("--password", metavar="FILE", help=HELP)
    secret.add_argument("--master-key", metavar="FILE", help="32 bytes or 64 hex digits, given likewise")
    if pinned:
        secret.add_argument(
            "--key", type=Path, metavar="FILE", help="the volume key that `pin` wrote; needs --side"
        )
        parser.add_argument("--side", type=Path, metavar="FILE", help="the side manifest; needs --key")


def _add_create(parser: Any) -> None:
    _add_volume(parser)
    parser.add_argument("--password", metavar="FILE", help=HELP)
    parser.add_argument("--master-key", metavar="FILE", help="take this key instead of a random one")
    parser.add_argument(
        "--master-key-out", type=Path, metavar="FILE", help="new file for the master key, 32 bytes"
    )
    parser.add_argument("--cipher", choices=sorted(_CIPHERS), default="aes-gcm", help="default: %(default)s")
    parser.add_argument("--plaintext-names", action="store_true", help="leave names in clear")
    parser.add_argument("--deterministic-names", action="store_true", help="no IVs for directories")
    parser.add_argument(
        "--long-name-max", type=int, default=LONGEST_NAME, metavar="N", help="hash names longer than this"
    )
    parser.add_argument(
        "--padded-base64", action="store_true", help="names as versions before 1.2 wrote them"
    )
    parser.add_argument(
        "--scrypt-log-n", type=int, default=16, metavar="N", help="cost of a try at the password"
    )
    parser.set_defaults(action=_create)


def _create(args: argparse.Namespace) -> int:
    if not (args.password or args.master_key or args.master_key_out):
        raise ConfigError(
            "create: want --password, --master-key or --master-key-out, or nobody can open the volume"
        )
    if not 10 <= args.scrypt_log_n <= 20:
        raise ConfigError(f"--scrypt-log-n: got {args.scrypt_log_n}, want 10..20")
    flags = _CIPHERS[args.cipher]
    if args.plaintext_names:
        flags = flags - _NAMES | {Flag.PLAINTEXT_NAMES}
    if args.deterministic_names:
        flags -= {Flag.DIR_IV}
    if args.padded_base64:
        flags -= {Flag.RAW_64}
    if args.long_name_max != LONGEST_NAME:
        flags |= {Flag.LONG_NAME_MAX}
    key = read_master_key(args.master_key) if args.master_key else secrets.token_bytes(KEY_SIZE)
    # Without a password the wrapped key is there because the format wants one, under a password nobody knows.
    password = read_password(args.password) if args.password else secrets.token_bytes(32)
    try:
        settings = make(
            master_key=key,
            password=password,
            scrypt=Scrypt(salt=secrets.token_bytes(SALT_SIZE), n=1 << args.scrypt_log_n),
            nonce=secrets.token_bytes(16),
            flags=flags,
            long_name_max=args.long_name_max,
        )
    except FormatError as error:
        raise ConfigError(str(error)) from None
    if args.master_key_out:
        write_new(args.master_key_out, key)
    create(args.volume, settings, diriv=secrets.token_bytes(DIRIV_SIZE))
    print(f"created  {args.volume}: {settings.cipher.value}, {', '.join(sorted(flags))}")
    return 0


def _pin(args: argparse.Namespace) -> int:
    if not 1 <= args.epoch <= MAX_EPOCH:
        raise ConfigError(f"--epoch: got {args.epoch}, want a whole number 1..2**53-1")
    try:
        check_name(args.name)
    except FormatError as error:
        raise ConfigError(f"--name: {error}") from None
    for out in (args.side_out, args.key_out):
        if os.path.lexists(out):
            raise ConfigError(f"{out}: exists, want a new file")
    key = _master_key(args)
    with _progress("pinning", args.volume) as show:
        side = pin_volume(
            args.volume,
            master_key=key,
            epoch=args.epoch,
            name=args.name,
            holes=args.allow_holes,
            progress=show,
        )
    data = side.seal(
        master_key=key,
        salt=secrets.token_bytes(SIDE_SALT_SIZE),
        volume_id=secrets.token_bytes(VOLUME_ID_SIZE),
    )
    root = side_root(data)
    write_new(args.key_out, VolumeKey(key=key, root=root, epoch=args.epoch).pack())
    write_new(args.side_out, data)
    args.side_out.chmod(0o644)  # it is encrypted, and whoever stores the volume may store it
    if args.json:
        facts = {"name": args.name, "epoch": args.epoch, "root": root.hex(), "entries": len(side.entries)}
        print(
            json.dumps(
                facts | {"holes": side.hole_count, "side": str(args.side_out), "key": str(args.key_out)}
            )
        )
        return 0
    print(f"pinned   {args.name} epoch {args.epoch}: {len(side.entries)} names, {side.hole_count} holes")
    print(f"root     {root.hex()}")
    print(f"side     {args.side_out}, {size(len(data))}")
    print(f"key      {args.key_out}")
    return 0


def _check(args: argparse.Namespace) -> int:
    key, side = _unlocked(args)
    with _progress("checking", args.volume) as show:
        findings = check_volume(args.volume, master_key=key, side=side, reverse=args.reverse, progress=show)
    for sentence in (*findings.problems, *(f"stray {stray}" for stray in findings.strays)):
        print(one_line(sentence), file=sys.stderr)
    if args.json:
        print(json.dumps(_facts(findings)))
    if findings.problems:
        raise VerifyError(f"{args.volume}: {len(findings.problems)} faults, want none")
    if not args.json:
        how = "genuine " if side is not None else "sound   "
        print(
            f"{how} {args.volume}: {findings.files} files, {findings.directories} directories, {findings.links} links, "
            f"{findings.blocks} blocks, {findings.holes} holes, {size(findings.bytes)}"
        )
    if side is None and not args.json:
        print(
            "note     the format cannot show what was exchanged, cut or rolled back: see `pin`",
            file=sys.stderr,
        )
    return 0


def _ls(args: argparse.Namespace) -> int:
    key, side = _unlocked(args)
    with GocryptfsVolume.open(args.volume, master_key=key, side=side) as volume:
        for item in volume.items:
            if item.path:
                print(json.dumps(_row(item)) if args.json else _text(item))
    return 0


def _cat(args: argparse.Namespace) -> int:
    key, side = _unlocked(args)
    with GocryptfsVolume.open(args.volume, master_key=key, side=side) as volume:
        wanted = os.fsencode(args.path.strip("/"))
        item = next((item for item in volume.items if item.path == wanted), None)
        if item is None or not stat.S_ISREG(item.mode):
            raise ConfigError(f"{args.path}: not a file of this volume")
        reader = volume.reader()
        for offset in range(0, item.size if item.key is not None else 0, MAX_READ):
            assert item.key is not None
            sys.stdout.buffer.write(reader.read(item.key, offset, min(MAX_READ, item.size - offset)))
    return 0


def _unlocked(args: argparse.Namespace) -> tuple[bytes, SideManifest | None]:
    """The master key, and the side manifest where the volume key tells which one it has to be."""
    if (args.key is None) is not (args.side is None):
        raise ConfigError("--key and --side go together: the key tells which side manifest it has to be")
    if args.key is None:
        return _master_key(args), None
    key = read_volume_key(args.key)
    with args.side.open("rb") as file:
        data = file.read(MAX_SIDE + 1)
    return key.key, SideManifest.open(data, master_key=key.key, epoch=key.epoch, root=key.root)


def _master_key(args: argparse.Namespace) -> bytes:
    if args.master_key is not None:
        return read_master_key(args.master_key)
    return unlock(read_settings(args.volume), read_password(args.password))


@contextmanager
def _progress(verb: str, cipherdir: Path) -> Iterator[Any]:
    """Progress against the size on disk, which is a little more than there is to read."""
    shown = Progress(verb, _bytes_below(cipherdir))
    try:
        yield shown.show
    finally:
        shown.end()


def _bytes_below(cipherdir: Path) -> int:
    total = 0
    for directory, _, names in os.walk(cipherdir, onerror=_unreadable):
        total += sum(os.lstat(os.path.join(directory, name)).st_size for name in names)
    return total


def _unreadable(error: OSError) -> None:
    raise MachineError(f"{error.filename}: {(error.strerror or 'failed').lower()}")


def _facts(findings: Findings) -> dict[str, object]:
    return {name: getattr(findings, name) for name in findings.__slots__}


def _row(item: Item) -> dict[str, object]:
    row: dict[str, object] = {"path": os.fsdecode(item.path), "mode": f"{item.mode:o}", "size": item.size}
    row["mtime"] = item.mtime_ns // 10**9
    return row | ({"target": os.fsdecode(item.target)} if item.target else {})


def _text(item: Item) -> str:
    path = one_line(os.fsdecode(item.path))
    arrow = f" -> {one_line(os.fsdecode(item.target))}" if item.target else ""
    return f"{stat.filemode(item.mode)} {item.size:>14} {path}{arrow}"
