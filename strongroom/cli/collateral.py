"""`strongroom collateral`: keep what vendors sign about their machines, so that verifying needs no network."""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from strongroom.cli.collateral_questions import add_questions, questions
from strongroom.cli.kept import default_directory
from strongroom.cli.terminal import one_line, table
from strongroom.errors import ConfigError, StrongroomError
from strongroom.host.collateral.archive import MAX_ARCHIVE, pack_archive, take_archive
from strongroom.host.collateral.client import DEADLINE, Client
from strongroom.host.collateral.fill import Outcome, fill
from strongroom.host.collateral.item import Item, Signed, Vendor, name_of
from strongroom.host.collateral.services import PUBLIC, Service, Services
from strongroom.host.collateral.store import Store
from strongroom.host.fetch import Pin
from strongroom.verify.roots import PRODUCTION, SIMULATED_LABEL, Roots
from strongroom.wire.canonical import JSON

_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_DIGITS: Final = re.compile(r"[0-9a-f]{6,64}")
_MINUTE: Final = "%Y-%m-%d %H:%M"
_SHOWN: Final = 12  # digits of a name in a table
_WIDEST: Final = 90  # characters of a title there


def add_parser(subparsers: Any) -> None:
    about = (__doc__ or "").partition(": ")[2]
    parser = subparsers.add_parser("collateral", help=about, description=f"{about[0].upper()}{about[1:]}")
    verbs = parser.add_subparsers(metavar="ACTION", required=True)

    fetch = verbs.add_parser(
        "fill",
        help="fetch what is missing, out of date or old",
        description="Fetch what the given evidence takes to be verified; without any, renew all that is kept.",
        epilog="A service that is away changes nothing: what is kept is used for as long as it holds. "
        "exit codes: 5 a service gave what is not genuine, 9 not reached and nothing that holds is kept",
    )
    add_questions(fetch)
    fetch.add_argument("--always", action="store_true", help="fetch also what is not old yet")
    fetch.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="NAME=URL",
        help=f"ask a mirror instead of the vendor; names: {', '.join(Vendor)}",
    )
    fetch.add_argument(
        "--ca", type=Path, metavar="FILE", help="the authority of mirrors (PEM; default: the system's)"
    )
    fetch.add_argument(
        "--deadline", type=float, default=DEADLINE, metavar="SECONDS", help="for one answer (%(default)g)"
    )
    fetch.set_defaults(action=_fill)

    every = verbs.add_parser("list", help="every entry, and until when it holds")
    every.set_defaults(action=_list)

    show = verbs.add_parser("show", help="one entry: its question, its parts and their digests")
    show.add_argument("name", metavar="NAME", help="the name, or its first digits")
    show.add_argument("--part", metavar="PART", help="write this part alone, as it is, to standard output")
    show.set_defaults(action=_show)

    pack = verbs.add_parser("export", help="all entries as one tar file, to carry elsewhere")
    pack.add_argument("file", type=Path, metavar="FILE")
    pack.set_defaults(action=_export)

    take = verbs.add_parser("import", help="the entries of such a file, examined like answers of a service")
    take.add_argument("file", type=Path, metavar="FILE")
    take.set_defaults(action=_import)

    for verb in (fetch, every, show, pack, take):
        _add_shared(verb)


def run(args: argparse.Namespace) -> int:
    code: int = args.action(args)
    return code


def _fill(args: argparse.Namespace) -> int:
    store, roots, now = Store.create(_directory(args)), _roots(args), _now(args)
    client = Client(services=_services(args.service, args.ca), deadline_s=args.deadline)
    asked, damage = questions(args, roots=roots, now=now), list[StrongroomError]()
    items = asked or list(_kept(store, damage))
    for error in damage:
        print(one_line(str(error)), file=sys.stderr)
    outcomes = asyncio.run(fill(items, store, client, roots=roots, now=now, always=args.always))
    for outcome in outcomes:
        if outcome.error is not None:
            print(one_line(f"{outcome.state}: {outcome.item.title}: {outcome.error}"), file=sys.stderr)
    if args.json:
        print(json.dumps([_outcome(outcome) for outcome in outcomes]))
    elif outcomes:
        print(table([_row(one.state, one.item, one.signed) for one in outcomes], widest=_WIDEST))
    return _code([*damage, *(one.error for one in outcomes if one.is_trouble and one.error is not None)])


def _list(args: argparse.Namespace) -> int:
    store, roots, now = Store(_directory(args)), _roots(args), _now(args)
    rows: list[list[str]] = []
    facts: list[JSON] = []
    for name in store.names():
        item, signed, why = _examined(store, name, roots, now)
        rows.append(
            [name[:_SHOWN], item.title if item else "?", _until(signed) if signed else f"USELESS {why}"]
        )
        facts.append({"name": name, "kind": item.kind if item else None} | _facts(signed) | {"error": why})
    if args.json:
        print(json.dumps(facts))
    elif rows:
        print(table(rows, widest=_WIDEST))
    return 0


def _show(args: argparse.Namespace) -> int:
    store = Store(_directory(args))
    entry = store.read(_full_name(store, args.name))
    if args.part is not None:
        if args.part not in entry.parts:
            raise ConfigError(f"--part: got {args.part!a}, want one of {', '.join(entry.parts)}")
        sys.stdout.flush()
        sys.stdout.buffer.write(entry.parts[args.part])
        return 0
    _, signed, why = _examined(store, entry.name, _roots(args), _now(args))
    parts = {
        name: {"bytes": len(part), "sha256": sha256(part).hexdigest()} for name, part in entry.parts.items()
    }
    if args.json:
        about = {"name": entry.name, "kind": entry.item.kind, "subject": entry.item.subject()}
        print(json.dumps(about | _facts(signed) | {"error": why, "parts": parts}))
        return 0
    rows = [["name", entry.name], ["what", entry.item.title]]
    rows += (
        [["issued", f"{signed.issued:{_MINUTE}}"], ["holds", _until(signed)]]
        if signed
        else [["useless", why or ""]]
    )
    rows += [
        [f"part {name}", f"{part['bytes']:6} bytes, sha256 {part['sha256']}"] for name, part in parts.items()
    ]
    print(table(rows))
    return 0


def _export(args: argparse.Namespace) -> int:
    store = Store(_directory(args))
    content, count = pack_archive(store), len(store.names())
    args.file.write_bytes(content)
    print(json.dumps({"entries": count}) if args.json else f"{args.file}: {count} entries")
    return 0


def _import(args: argparse.Namespace) -> int:
    with args.file.open("rb") as file:
        content = file.read(MAX_ARCHIVE + 1)
    store = Store.create(_directory(args))
    taken = take_archive(content, store, roots=_roots(args), now=_now(args))
    for one in taken:
        if one.error is not None:
            print(one_line(f"refused: {one.item.title}: {one.error}"), file=sys.stderr)
    if args.json:
        print(json.dumps([{"name": one.name, "kind": one.item.kind, **_facts(one.signed)} for one in taken]))
    elif taken:
        print(
            table(
                [_row("refused" if one.error else "taken", one.item, one.signed) for one in taken],
                widest=_WIDEST,
            )
        )
    return _code([one.error for one in taken if one.error is not None])


def _kept(store: Store, damage: list[StrongroomError]) -> Iterator[Item]:
    """The question of every entry that can be read; why the others cannot, in `damage`."""
    for name in store.names():
        try:
            yield store.read(name).item
        except StrongroomError as error:
            damage.append(error)


def _examined(
    store: Store, name: str, roots: Roots, now: datetime
) -> tuple[Item | None, Signed | None, str | None]:
    """What an entry asks, what is signed in it, and why it is of no use now."""
    item = None
    try:
        item = store.read(name).item
        return item, store.examine(item, roots=roots, now=now), None
    except StrongroomError as error:
        return item, None, str(error)


def _code(errors: list[StrongroomError]) -> int:
    """Zero, or the gravest: what is not genuine before what was not reached. Each was said on its own line."""
    return min((error.exit_code for error in errors), default=0)


def _row(state: str, item: Item, signed: Signed | None) -> list[str]:
    return [state, item.title, _until(signed) if signed else "-"]


def _until(signed: Signed) -> str:
    return f"until {signed.until:{_MINUTE}}" + (f" {SIMULATED_LABEL}" if signed.simulated else "")


def _facts(signed: Signed | None) -> dict[str, JSON]:
    if signed is None:
        return {"issued": None, "until": None, "simulated": None}
    return {
        "issued": signed.issued.isoformat(),
        "until": signed.until.isoformat(),
        "simulated": signed.simulated,
    }


def _outcome(outcome: Outcome) -> dict[str, JSON]:
    return {
        "name": name_of(outcome.item),
        "kind": outcome.item.kind,
        "state": outcome.state,
        **_facts(outcome.signed),
        "error": None if outcome.error is None else str(outcome.error),
    }


def _full_name(store: Store, digits: str) -> str:
    found = [name for name in store.names() if name.startswith(digits)]
    if not _DIGITS.fullmatch(digits) or len(found) != 1:
        raise ConfigError(f"show: {len(found)} entries have names that start with {digits[:64]!a}, want one")
    return found[0]


def _add_shared(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--cache", type=Path, metavar="DIR", help="where it is kept (default: ~/.cache/strongroom/collateral)"
    )
    verb.add_argument("--now", metavar="TIME", help="judge as of this time, such as 2026-11-20T12:00:00Z")
    verb.add_argument("--json", action="store_true", help="print one JSON value")
    verb.add_argument(
        "--insecure-simulated-root",
        action="append",
        default=[],
        metavar="HEX64",
        help="accept this simulated root: demo only",
    )


def _directory(args: argparse.Namespace) -> Path:
    if args.cache is not None:
        return Path(args.cache)
    return default_directory()


def _roots(args: argparse.Namespace) -> Roots:
    for digest in args.insecure_simulated_root:
        if not _HEX32.fullmatch(digest):
            raise ConfigError(f"--insecure-simulated-root: got {digest[:80]!a}, want 64 lowercase hex digits")
    return PRODUCTION.with_insecure(bytes.fromhex(digest) for digest in args.insecure_simulated_root)


def _now(args: argparse.Namespace) -> datetime:
    if args.now is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(args.now)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(
            f"--now: got {args.now[:64]!a}, want a time with its zone, such as 2026-11-20T12:00:00Z"
        )
    return moment


def _services(mirrors: list[str], ca: Path | None) -> Services:
    """The vendors' own services, but for those a mirror is named for."""
    pin = Pin(system=True) if ca is None else Pin(ca_pem=ca.read_text("ascii", "replace"))
    services = dict(PUBLIC)
    for mirror in mirrors:
        name, _, url = mirror.partition("=")
        if name not in set(Vendor):
            raise ConfigError(f"--service: got {name[:40]!a}, want one of {', '.join(Vendor)}")
        services[Vendor(name)] = Service(url, pin)
    if ca is not None and not mirrors:
        raise ConfigError("--ca: is for mirrors, want --service too")
    return services
