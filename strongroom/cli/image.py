"""`strongroom image`: open an encrypted container image, as a layout or as a tree to run in."""

import argparse
import json
import secrets
from pathlib import Path
from typing import Any, Final

from strongroom.cli.progress import Progress
from strongroom.errors import ConfigError, FormatError
from strongroom.host.credentials import read_credential
from strongroom.host.images.keyfile import MAX_KEY, private_key, public_key
from strongroom.host.images.layout import PLATFORM, Layout
from strongroom.host.images.recrypt import decrypt_image, encrypt_image
from strongroom.host.images.unpack import ROOT, unpack_image
from strongroom.host.pull.credentials import read_private
from strongroom.host.secret import Secret
from strongroom.keys.jwk import PrivateKey
from strongroom.sealed.ocicrypt.image import check_digest

_CREDENTIAL: Final = "credential:"


def add_parser(subparsers: Any) -> None:
    about = (__doc__ or "").partition(": ")[2]
    parser = subparsers.add_parser("image", help=about, description=f"{about[0].upper()}{about[1:]}")
    verbs = parser.add_subparsers(metavar="ACTION", required=True)

    decrypt = verbs.add_parser(
        "decrypt",
        help="an image with plain layers, in a new layout",
        description="Decrypt the image of the OCI layout LAYOUT into the new layout DEST, which skopeo and umoci read.",
        epilog="The digest says which image is meant, and has to come from someone you trust: whoever has the public "
        "key can encrypt an image of their own. exit codes: 5 not that image, or not for this key",
    )
    _add_key(decrypt, required=True)
    decrypt.set_defaults(action=_decrypt)

    unpack = verbs.add_parser(
        "unpack",
        help="an image as a tree of files, for RootDirectory=",
        description="Make DEST/rootfs of an image in the OCI layout LAYOUT, encrypted or not; DEST is private.",
        epilog="exit codes: 4 a layer holds a device or leads outside, 5 not that image, or not for this key",
    )
    _add_key(unpack, required=False)
    unpack.set_defaults(action=_unpack)

    encrypt = verbs.add_parser(
        "encrypt",
        help="an image with encrypted layers, in a new layout",
        description="Encrypt every layer of the image of the OCI layout LAYOUT into the new layout DEST (OCIcrypt).",
        epilog="The configuration and the manifest stay readable: command, environment, sizes.",
    )
    encrypt.add_argument(
        "--recipient",
        action="append",
        required=True,
        type=Path,
        metavar="FILE",
        help="a public key (PEM); repeatable",
    )
    encrypt.add_argument("--digest", metavar="DIGEST", help="which image (default: the only one, or --tag)")
    encrypt.add_argument("--tag", metavar="NAME", help="which image, by its name in index.json")
    encrypt.set_defaults(action=_encrypt)

    for verb in (decrypt, unpack, encrypt):
        verb.add_argument("layout", metavar="LAYOUT", type=Path, help="directory of an OCI image layout")
        verb.add_argument("dest", metavar="DEST", type=Path, help="directory to make")
        verb.add_argument(
            "--platform",
            default=PLATFORM,
            metavar="OS/ARCH",
            help="of an image for several (default: %(default)s)",
        )
        verb.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    code: int = args.action(args)
    return code


def _add_key(verb: argparse.ArgumentParser, *, required: bool) -> None:
    verb.add_argument("--digest", required=True, metavar="DIGEST", help="the image's, as sha256:...")
    verb.add_argument(
        "--key",
        required=required,
        metavar="FILE",
        help="the private key (PEM or DER, mode 0600), or credential:NAME for one of the service manager's",
    )


def _decrypt(args: argparse.Namespace) -> int:
    _check(args.digest)
    key = _key(args.key)
    with Layout.open(args.layout) as layout:
        show = _Bar("decrypting", layout, args)
        digest = decrypt_image(layout, args.digest, args.dest, key=key, platform=args.platform, progress=show)
        show.end()
    _tell(args, {"digest": digest, "dest": str(args.dest)}, f"decrypted  {args.dest}\ndigest     {digest}")
    return 0


def _encrypt(args: argparse.Namespace) -> int:
    recipients = [public_key(path) for path in args.recipient]
    with Layout.open(args.layout) as layout:
        source = args.digest if args.digest is not None else layout.find(args.tag)
        args.digest = source
        _check(source)
        show = _Bar("encrypting", layout, args)
        digest = encrypt_image(
            layout,
            source,
            args.dest,
            recipients=recipients,
            entropy=secrets.token_bytes,
            platform=args.platform,
            progress=show,
        )
        show.end()
    facts = {"digest": digest, "source": source, "recipients": len(recipients), "dest": str(args.dest)}
    _tell(args, facts, f"encrypted  {args.dest}, for {len(recipients)} keys\ndigest     {digest}")
    return 0


def _unpack(args: argparse.Namespace) -> int:
    _check(args.digest)
    key = None if args.key is None else _key(args.key)
    with Layout.open(args.layout) as layout:
        show = _Bar("verifying", layout, args)
        done = unpack_image(layout, args.digest, args.dest, key=key, platform=args.platform, progress=show)
        show.end()
    root = args.dest / ROOT
    facts = {"root": str(root), "layers": done.layers, "entries": done.files, "digest": args.digest}
    _tell(args, facts, f"unpacked   {done.layers} layers, {done.files} entries\nroot       {root}")
    return 0


class _Bar:
    """Progress over the bytes of all layers."""

    def __init__(self, verb: str, layout: Layout, args: argparse.Namespace) -> None:
        image = layout.image(args.digest, platform=args.platform)
        self._progress = Progress(verb, sum(layer.size for layer in image.layers))
        self._done = 0

    def __call__(self, more: int) -> None:
        self._done += more
        self._progress.show(self._done)

    def end(self) -> None:
        self._progress.end()


def _check(digest: str) -> None:
    try:
        check_digest(digest, "--digest")
    except FormatError as error:
        raise ConfigError(str(error)) from None


def _key(place: str) -> PrivateKey:
    if place.startswith(_CREDENTIAL):
        data = read_credential(place.removeprefix(_CREDENTIAL), max_bytes=MAX_KEY)
    else:
        data = read_private(Path(place), MAX_KEY)
    with Secret(data) as secret:
        return private_key(secret)


def _tell(args: argparse.Namespace, facts: dict[str, object], text: str) -> None:
    print(json.dumps(facts) if args.json else text)
