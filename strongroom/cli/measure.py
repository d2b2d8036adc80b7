"""`strongroom measure`: the golden value of directory trees, and a first policy that asks for it."""

import argparse
import json
import re
from pathlib import Path
from typing import Any, Final

from strongroom.errors import ConfigError
from strongroom.host.tree import measure
from strongroom.measure.tree import words

_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "measure",
        help="compute the golden values of an image, for a policy",
        description="Print the digest of directory trees, and four words of it to compare aloud.",
        epilog="Files, links, directories and their permission bits count; owners and times do not.",
    )
    parser.add_argument(
        "tree", nargs="+", metavar="[NAME=]DIR", help="a tree; NAME is by default its last part"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    parser.add_argument("--policy-out", type=Path, metavar="FILE", help="write a minimal policy")
    parser.add_argument("--name", metavar="NAME", help="what the policy calls this measurement")
    parser.add_argument(
        "--host-data",
        action="append",
        metavar="HEX64",
        help="accept only guests launched with this HOST_DATA",
    )
    parser.add_argument(
        "--insecure-simulated-root",
        action="append",
        metavar="HEX64",
        help="accept this simulated chip: demo only",
    )


def run(args: argparse.Namespace) -> int:
    if (args.policy_out is None) != (args.name is None):
        raise ConfigError("measure: want --policy-out and --name together")
    if args.policy_out is None and (args.host_data or args.insecure_simulated_root):
        raise ConfigError(
            "measure: --host-data and --insecure-simulated-root go into a policy, want --policy-out"
        )
    digest = measure(args.tree)
    if args.policy_out is not None:
        policy = policy_text(
            args.name,
            digest,
            host_data=args.host_data or [],
            simulated_roots=args.insecure_simulated_root or [],
        )
        args.policy_out.write_text(policy, "ascii")
    if args.json:
        print(json.dumps({"measurement": digest.hex(), "words": words(digest)}))
    else:
        print(f"measurement  {digest.hex()}\nwords        {words(digest)}")
    return 0


def policy_text(name: str, digest: bytes, *, host_data: list[str], simulated_roots: list[str]) -> str:
    """YAML of the smallest policy that accepts machines with this measurement and no debugging.

    Raises ConfigError for a name or hex value that does not stand in YAML as it is.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name: got {name!r}, want letters, digits, spaces and ._- (64 at most)")
    for value in (*host_data, *simulated_roots):
        if not _HEX32.fullmatch(value):
            raise ConfigError(f"measure: got {value[:80]!r}, want 64 lowercase hex digits")
    lines = ["version: 1", "measurements:", f'  - name: "{name}"', f'    value: "{digest.hex()}"']
    if host_data:
        lines += ["host_data:", *(f'  - "{value}"' for value in host_data)]
    else:
        lines += ["# Any userdata passes. Name the SHA-256 values you accept instead:", "host_data: any"]
    if simulated_roots:
        lines += ["# Simulated silicon protects nothing. Remove this outside of a demonstration."]
        lines += ["insecure_simulated_roots:", *(f'  - "{value}"' for value in simulated_roots)]
    return "\n".join(lines) + "\n"
