"""What administrators do, as verbs: each one action at a directory or over the network, and what came of it."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from strongroom.broker.audit import Head
from strongroom.broker.reference import MAX_BYTES as MAX_REFERENCES
from strongroom.broker.reference import ReferenceValues, sign
from strongroom.broker.resource import VolumeKey
from strongroom.cli.broker_target import Answered, act, add_target, is_url, local_actor, read_key, write_key
from strongroom.cli.terminal import table
from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.host.brokerage.actors import ADMINISTRATOR, ROLES
from strongroom.host.brokerage.arguments import encoded
from strongroom.host.brokerage.change import MAX_PAYLOAD
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.rule import MAX_POLICY
from strongroom.wire.canonical import b64u, parse_json

_URI: Final = "kbs:///REPOSITORY/TYPE/TAG"
_POLICY_HELP: Final = "YAML: whom it is released to; named .rego: a Rego policy; may be given for both"


def add_verbs(verbs: Any) -> None:
    put = _verb(verbs, "put", _put, "keep a file under a name, guarded by a policy; again: a new version")
    put.add_argument("resource", metavar=_URI)
    put.add_argument("file", type=Path, metavar="FILE", help="such as the key from `strongroom seal`")
    put.add_argument("--policy", type=Path, action="append", default=[], metavar="FILE", help=_POLICY_HELP)

    rotate = _verb(verbs, "rotate", _rotate, "a new version of a secret, or a new root key")
    rotate.add_argument("resource", nargs="?", metavar=_URI)
    rotate.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="such as the key from `strongroom rekey`"
    )
    rotate.add_argument("--random", type=int, metavar="BYTES", help="a secret made by the broker")
    rotate.add_argument(
        "--root-key",
        nargs="?",
        const="",
        metavar="SOURCE",
        help="seal everything under a new root key, of the source it has or of file:NAME, credential:NAME, tpm:PCRS",
    )

    listing = _verb(verbs, "list", _list, "resources with their versions, and what is revoked")
    listing.add_argument("--json", action="store_true", help="print JSON")

    delete = _verb(verbs, "delete", _delete, "remove a resource, or one version of it")
    delete.add_argument("resource", metavar=_URI)
    delete.add_argument("--version", type=int, metavar="N")

    policy = _verb(verbs, "policy", _policy, "print a resource's policy, or replace it", "get-policy")
    policy.add_argument("resource", metavar=_URI)
    policy.add_argument("--set", type=Path, action="append", default=[], metavar="FILE", help=_POLICY_HELP)

    revoke = _verb(verbs, "revoke", _revoke, "stop release at once: of epochs of a key, or to an image")
    revoke.add_argument("resource", nargs="?", metavar=_URI)
    revoke.add_argument(
        "--epoch", type=int, metavar="N", help="this epoch of the resource and every older one"
    )
    revoke.add_argument("--measurement", metavar="HEX", help="a launch measurement, a register or a PCR")
    revoke.add_argument("--reason", required=True, metavar="TEXT", help="guests and the audit log read it")
    revoke.add_argument("--undo", action="store_true", help="release again")

    _add_references(verbs)
    _add_administrators(verbs)


def _add_references(verbs: Any) -> None:
    reference = verbs.add_parser(
        "reference", help="reference values from signed files, for policies to build on"
    )
    doing = reference.add_subparsers(metavar="ACTION", required=True)
    bring = _verb(doing, "import", _import_references, "take a signed file")
    bring.add_argument("file", type=Path, metavar="FILE")
    bring.add_argument(
        "--signer", metavar="KEY", help="the key that may sign this name; wanted the first time"
    )
    listing = _verb(doing, "list", _list_references, "print what is there")
    listing.add_argument("--json", action="store_true", help="print JSON")
    delete = _verb(doing, "delete", _delete_references, "forget a set; policies that build on it accept less")
    delete.add_argument("name", metavar="NAME")
    signing = doing.add_parser("sign", help="sign reference values, where an image was built")
    signing.add_argument("file", type=Path, metavar="FILE", help="JSON, docs/formats/reference-values.md")
    signing.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="from `strongroom broker key`"
    )
    signing.add_argument("--out", type=Path, required=True, metavar="FILE")
    signing.set_defaults(action=_sign_references)


def _add_administrators(verbs: Any) -> None:
    key = verbs.add_parser("key", help="make a key to administer brokers or to sign reference values with")
    key.add_argument("file", type=Path, metavar="FILE", help="new, 0600")
    key.set_defaults(action=_key)
    admin = verbs.add_parser("admin", help="who may administer a broker over the network")
    doing = admin.add_subparsers(metavar="ACTION", required=True)
    _verb(doing, "list", _list_administrators, "print them")
    add = _verb(doing, "add", _add_administrator, "let a key in")
    add.add_argument("name", metavar="NAME")
    add.add_argument("public", metavar="KEY", help="as `strongroom broker key` printed it")
    add.add_argument("--role", choices=ROLES, default=ADMINISTRATOR, help="an auditor only reads")
    remove = _verb(doing, "remove", _remove_administrator, "let a key out")
    remove.add_argument("name", metavar="NAME")


def _verb(verbs: Any, name: str, action: Any, help: str, *aliases: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=help, aliases=aliases)
    add_target(parser)
    parser.set_defaults(action=action)
    return parser


def _put(args: argparse.Namespace) -> int:
    payload = _read(args.file, MAX_PAYLOAD)
    rules = _rules(args.policy)
    answered = act(args, "put", uri=args.resource, payload=encoded(payload), **rules)
    print(f"{args.resource}: version {answered.result['version']}, {_described(payload)}")
    return _done(answered)


def _rotate(args: argparse.Namespace) -> int:
    if args.root_key is not None:
        return _rotate_root(args)
    if args.resource is None:
        raise ConfigError("rotate: want a resource, or --root-key")
    payload = None if args.file is None else encoded(_read(args.file, MAX_PAYLOAD))
    answered = act(args, "rotate", uri=args.resource, payload=payload, random=args.random)
    print(f"{args.resource}: version {answered.result['version']}, epoch {answered.result['epoch']}")
    return _done(answered)


def _rotate_root(args: argparse.Namespace) -> int:
    if is_url(args.target) or args.resource is not None:
        raise ConfigError("rotate --root-key: want the broker's directory, and nothing else")
    actor = local_actor()
    with House(Path(args.target)) as house:
        lines = house.rotate_root(actor.audit, args.root_key or None)
    print("everything is sealed under the new root key; copies made before open with the old one alone")
    return _done(Answered({}, tuple(lines)))


def _list(args: argparse.Namespace) -> int:
    result = act(args, "list").result
    if args.json:
        print(json.dumps(result))
        return 0
    rows: list[Sequence[str]] = [("resource", "versions", "released", "epoch", "policy")]
    for one in result["resources"]:
        current = next((v for v in one["versions"] if v["version"] == one["current"]), None)
        versions = ",".join(str(version["version"]) for version in one["versions"])
        released, epoch = (
            ("none", "") if current is None else (str(current["version"]), str(current["epoch"]))
        )
        rows.append((one["uri"], versions, released, epoch, one["policy"]))
    print(table(rows, widest=80))
    for one in result["revocations"]:
        what = (
            one["subject"]
            if one["kind"] == "measurement"
            else f"{one['subject']} epoch {one['epoch']} and older"
        )
        print(f"revoked  {what}  {one['reason']}")
    return 0


def _delete(args: argparse.Namespace) -> int:
    answered = act(args, "delete", uri=args.resource, version=args.version)
    print(f"{args.resource}: deleted, versions {', '.join(map(str, answered.result['versions'])) or 'none'}")
    return _done(answered)


def _policy(args: argparse.Namespace) -> int:
    if args.set:
        answered = act(args, "set-policy", uri=args.resource, **_rules(args.set))
        print(f"{args.resource}: {answered.result['policy']}")
        return _done(answered)
    result = act(args, "get-policy", uri=args.resource).result
    for name in ("policy", "rego"):
        if (text := result[name]) is not None:
            print(text, end="" if text.endswith("\n") else "\n")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    action = "reinstate" if args.undo else "revoke"
    answered = act(
        args,
        action,
        uri=args.resource,
        epoch=args.epoch,
        measurement=args.measurement,
        reason=args.reason,
    )
    result = answered.result
    what = result["subject"] + (
        "" if result["kind"] == "measurement" else f" epoch {result['epoch']} and older"
    )
    print(f"{what}: {'released again' if args.undo else 'revoked'}")
    return _done(answered)


def _import_references(args: argparse.Namespace) -> int:
    file = _read(args.file, MAX_REFERENCES)
    answered = act(args, "import-references", file=_text(file, args.file), signer=args.signer)
    result = answered.result
    print(f"{result['name']}: {result['measurements']} measurements, serial {result['serial']}")
    return _done(answered)


def _list_references(args: argparse.Namespace) -> int:
    result = act(args, "list-references").result
    if args.json:
        print(json.dumps(result))
        return 0
    rows: list[Sequence[str]] = [("name", "serial", "measurements", "until", "signer")]
    for one in result["references"]:
        until = one.get("not_after", "")
        rows.append(
            (one["name"], str(one["serial"]), str(len(one["measurements"])), str(until), one["signer"])
        )
    print(table(rows))
    return 0


def _delete_references(args: argparse.Namespace) -> int:
    answered = act(args, "delete-references", name=args.name)
    print(f"{args.name}: deleted")
    return _done(answered)


def _sign_references(args: argparse.Namespace) -> int:
    values = ReferenceValues.from_json(parse_json(_read(args.file, MAX_REFERENCES), str(args.file)))
    signed = sign(values, read_key(args.key))
    args.out.write_bytes(signed.pack())
    print(f"{args.out}: {values.name}, serial {values.serial}, signed by {b64u(signed.key)}")
    return 0


def _key(args: argparse.Namespace) -> int:
    print(f"{args.file}: key {b64u(write_key(args.file))}")
    return 0


def _list_administrators(args: argparse.Namespace) -> int:
    rows: list[Sequence[str]] = [("name", "role", "key")]
    rows += [
        (one["name"], one["role"], one["key"])
        for one in act(args, "list-administrators").result["administrators"]
    ]
    print(table(rows))
    return 0


def _add_administrator(args: argparse.Namespace) -> int:
    answered = act(args, "add-administrator", name=args.name, key=args.public, role=args.role)
    print(f"{args.name}: {args.role}")
    return _done(answered)


def _remove_administrator(args: argparse.Namespace) -> int:
    answered = act(args, "remove-administrator", name=args.name)
    print(f"{args.name}: removed")
    return _done(answered)


def _done(answered: Answered) -> int:
    """The head after it, for whoever keeps heads."""
    for line in answered.lines[-1:]:
        number = parse_json(line, "audit line")
        if isinstance(number, dict) and isinstance(n := number["n"], int):
            print(f"audit head {Head(n - 1, b'').next(line)}")
    return 0


def _rules(files: Sequence[Path]) -> dict[str, str]:
    """The texts of policy files by what they are."""
    rules: dict[str, str] = {}
    for path in files:
        kind = "rego" if path.suffix == ".rego" else "policy"
        if kind in rules:
            raise ConfigError(f"{path}: a second {kind}, want one YAML and one Rego policy at most")
        rules[kind] = _text(_read(path, MAX_POLICY), path)
    return rules


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise FormatError(f"{path}: not UTF-8 text") from None


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise MachineError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    if len(content) > most:
        raise FormatError(f"{path}: longer than {most} bytes")
    return content


def _described(payload: bytes) -> str:
    try:
        volume = VolumeKey.parse(payload)
    except FormatError:
        return f"{len(payload)} bytes kept"
    return f"key kept for the sealed model of root {volume.root.hex()}, epoch {volume.epoch}"
