"""`strongroom key`: the keys of the program that asks, and signatures and certificates by keys that stay inside.

Key bytes go to a file of their own or, where that is asked for by name, to standard output. They are never shown on a
terminal by accident.
"""

import argparse
import json
import os
import sys
from base64 import standard_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from strongroom.cli.terminal import is_terminal, one_line, table
from strongroom.errors import ConfigError, FormatError, ProtocolError
from strongroom.host.keysock import AGENT, DSTACK, ask
from strongroom.host.secret import Secret
from strongroom.wire.canonical import JSON, b64u, unb64u

KINDS: Final = ("secret", "ed25519", "p256", "secp256k1")
PAIRS: Final = KINDS[1:]
MAX_SIGNED: Final = 4 << 20  # bytes
_STDIN: Final = "-"
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FORMS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "hex": lambda key: key.hex().encode() + b"\n",
    "base64": lambda key: standard_b64encode(key) + b"\n",
    "raw": bytes,
}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "key",
        help="keys of the program that asks, from the machine it runs in",
        description="Inside a strongroom machine: a key, a signature or a certificate, as userdata allows it to the "
        "unit or user that runs this command. `strongroom status` shows what that is.",
        epilog="exit codes: 6 no rule allows it, 9 there is no key socket here",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    get = actions.add_parser(
        "get",
        help="a key's bytes, into a file or a pipe",
        description="The 32 bytes of a key. Without --out and --print they are asked for and not shown.",
        epilog="example: strongroom key get api.service/db --out /run/api/db.key",
    )
    _add_named(get, KINDS, "secret")
    where = get.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, metavar="FILE", help="write the bytes to this new file, mode 0600")
    where.add_argument("--print", choices=_FORMS, metavar="FORM", help=f"print them as {', '.join(_FORMS)}")
    get.add_argument("--reveal", action="store_true", help="print them even where that is a terminal")
    get.add_argument(
        "--dstack",
        action="store_true",
        help="the key that dstack's SDK gets for this path: GetKey, from its socket",
    )
    get.add_argument("--purpose", metavar="TEXT", help="with --dstack: what its signature chain is for")
    get.add_argument("--algorithm", metavar="NAME", help="with --dstack: secp256k1 (the default) or ed25519")
    get.set_defaults(action=_get)

    public = actions.add_parser("public", help="the public half of a key that signs and stays inside")
    _add_named(public, PAIRS, "ed25519")
    public.add_argument("--out", type=Path, metavar="PEM", help="write it to this file")
    public.set_defaults(action=_public)

    sign = actions.add_parser("sign", help="sign a file with a key that stays inside")
    sign.add_argument("file", metavar="FILE", help="what to sign; - is standard input")
    _add_named(sign, PAIRS, "ed25519")
    sign.add_argument("--out", type=Path, metavar="FILE", help="write the 64 bytes of the signature here")
    sign.set_defaults(action=_sign)

    certificate = actions.add_parser(
        "certificate",
        help="a new key pair and this machine's certificate for it",
        description="A P-256 key that has never been anywhere else, and a certificate by this machine's authority, "
        "on request with evidence for that very key.",
    )
    certificate.add_argument("--key-out", type=Path, required=True, metavar="PEM", help="new file, mode 0600")
    certificate.add_argument("--chain-out", type=Path, required=True, metavar="PEM", help="leaf first")
    certificate.add_argument("--subject", default="", metavar="NAME", help="common name")
    certificate.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="DNS name or address"
    )
    certificate.add_argument("--client", action="store_true", help="good for TLS clients too")
    certificate.add_argument("--evidence", action="store_true", help="carries evidence for its key (RA-TLS)")
    certificate.add_argument("--days", type=int, default=7, metavar="N", help="life (default: %(default)s)")
    _add_shared(certificate)
    certificate.set_defaults(action=_certificate)


def _add_named(parser: argparse.ArgumentParser, kinds: tuple[str, ...], default: str) -> None:
    if default == "secret":
        parser.add_argument("path", nargs="?", metavar="PATH", help="by default your own name and a slash")
    else:
        parser.add_argument("--path", metavar="PATH", help="by default your own name and a slash")
    parser.add_argument("--kind", choices=kinds, help=f"default: {default}")
    parser.add_argument("--epoch", type=int, metavar="N", help="by default the newest")
    _add_shared(parser)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--socket", type=Path, metavar="PATH", help=f"the key socket (default: {AGENT})")


def run(args: argparse.Namespace) -> int:
    code: int = args.action(args)
    return code


def _get(args: argparse.Namespace) -> int:
    _check_get(args)
    if args.out is None:
        answer, key = _dstack_key(args) if args.dstack else _own_key(args)
    else:
        with new_file(args.out) as file:  # before the key is asked for: an answer that cannot be kept is none
            answer, key = _dstack_key(args) if args.dstack else _own_key(args)
            os.write(file, key.view())
            os.fsync(file)
    with key:
        if args.json:
            shown = {"key": _FORMS[args.print](key.reveal()).decode().strip()} if args.print else {}
            print(json.dumps(answer | {"bytes": len(key)} | shown))
        elif args.print:
            sys.stdout.flush()
            sys.stdout.buffer.write(_FORMS[args.print](key.reveal()))
        else:
            where = str(args.out) if args.out else "not shown: --out FILE keeps it, --print FORM prints it"
            print(_rows(answer | {"key": f"{len(key)} bytes, {where}"}))
    return 0


def _check_get(args: argparse.Namespace) -> None:
    if args.print and is_terminal() and not args.reveal:
        raise ConfigError("--print: standard output is a terminal, want --reveal to show a key there")
    if args.print == "raw" and args.json:
        raise ConfigError("--print: raw is no JSON, want hex or base64")
    if args.dstack and (args.kind or args.epoch is not None):
        raise ConfigError(
            "--dstack: its keys have neither kinds nor epochs, want --kind and --epoch without it"
        )
    if not args.dstack and (args.purpose or args.algorithm):
        raise ConfigError("--purpose, --algorithm: they are dstack's, want --dstack with them")
    if args.dstack and args.path is None:
        raise ConfigError("--dstack: its keys have no path of their own by default, want one")


def _own_key(args: argparse.Namespace) -> tuple[dict[str, JSON], Secret]:
    answer = ask(args.socket or AGENT, "/v1/keys", _named(args))
    key = answer.pop("key", None)
    if not isinstance(key, str):
        raise ProtocolError("key socket: an answer without a key")
    return answer, Secret(unb64u(key, "key"))


def _dstack_key(args: argparse.Namespace) -> tuple[dict[str, JSON], Secret]:
    fields: dict[str, JSON] = {
        "path": args.path,
        "purpose": args.purpose or "",
        "algorithm": args.algorithm or "",
    }
    answer = ask(args.socket or DSTACK, "/GetKey", fields)
    key = answer.pop("key", None)
    try:
        secret = Secret(bytes.fromhex(key if isinstance(key, str) else "?"))
    except ValueError:
        raise ProtocolError("key socket: an answer without a key") from None
    return {"path": args.path, **answer}, secret


def _public(args: argparse.Namespace) -> int:
    answer = ask(args.socket or AGENT, "/v1/public-keys", _named(args))
    text = public_pem(_octets(answer, "public_key"))
    if args.out is not None:
        args.out.write_text(text)
    if args.json:
        print(json.dumps(answer | {"pem": text}))
    elif args.out is None:
        print(text, end="")
    return 0


def _sign(args: argparse.Namespace) -> int:
    data = _content(args.file)
    answer = ask(args.socket or AGENT, "/v1/signatures", _named(args) | {"data": b64u(data)})
    signature = _octets(answer, "signature")
    if args.out is not None:
        args.out.write_bytes(signature)
    if args.json:
        print(json.dumps(answer))
    elif args.out is None:
        print(signature.hex())
    return 0


def _certificate(args: argparse.Namespace) -> int:
    if not 0 < args.days <= 397:
        raise ConfigError(f"--days: got {args.days}, want 1..397")
    fields: dict[str, JSON] = {
        "subject": args.subject,
        "names": args.name,
        "client": args.client,
        "evidence": args.evidence,
        "lifetime_s": args.days * 86_400,
    }
    with new_file(args.key_out) as file:
        answer = ask(args.socket or AGENT, "/v1/certificates", fields)
        match answer:
            case {"key": str(key), "chain": [*chain], "not_after": int(not_after)}:
                os.write(file, key.encode())
                os.fsync(file)
            case _:
                raise ProtocolError("key socket: an answer without a key and its certificate")
        args.chain_out.write_text("".join(map(str, chain)))
    files: dict[str, JSON] = {"key": str(args.key_out), "chain": str(args.chain_out), "not_after": not_after}
    print(json.dumps(files) if args.json else _rows(files))
    return 0


def _named(args: argparse.Namespace) -> dict[str, JSON]:
    """The members that name a key; what is left out has its default on the other side."""
    wanted = {"path": args.path, "kind": args.kind, "epoch": args.epoch}
    return {name: value for name, value in wanted.items() if value is not None}


def _octets(answer: dict[str, JSON], name: str) -> bytes:
    value = answer.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"key socket: an answer without {name}")
    return unb64u(value, name)


def _content(file: str) -> bytes:
    if file == _STDIN:
        data = sys.stdin.buffer.read(MAX_SIGNED + 1)
    else:
        with Path(file).open("rb") as opened:
            data = opened.read(MAX_SIGNED + 1)
    if len(data) > MAX_SIGNED:
        raise FormatError(f"{file}: more than {MAX_SIGNED} bytes, want its hash signed instead")
    return data


def _rows(values: dict[str, JSON]) -> str:
    return table([(name, one_line(_said(value))) for name, value in values.items()])


def _said(value: JSON) -> str:
    return ", ".join(filter(None, map(str, value))) if isinstance(value, list) else str(value)


def public_pem(spki: bytes) -> str:
    """PEM text of a DER SubjectPublicKeyInfo; ProtocolError when it is none."""
    try:
        key = load_der_public_key(spki)
    except ValueError:
        raise ProtocolError("key socket: a public key that is none") from None
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """A file only its owner can read, gone again when the work inside fails. An existing one is never touched."""
    try:
        file = os.open(path, _NEW, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path}: exists, want a new file") from None
    try:
        yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
