"""`python -m demo.silicon serve`: a launcher's view of one guest, on a chip that is a file.

The launcher measures the trees the guest is made of, fixes HOST_DATA and the policy, and serves the report ABI
at a mount point. One JSON line says when. The flags --measurement-file, --debug-policy and --tcb exist to show
what a verifier refuses.
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from demo.silicon.entries import Entries
from demo.silicon.mint import CURRENT_TCB, DEBUG, POLICY, Silicon
from demo.silicon.pki import kept_pki
from demo.silicon.tree import serve
from strongroom.errors import ConfigError, StrongroomError
from strongroom.evidence.snp import TCB
from strongroom.host.tree import measure
from strongroom.measure.tree import DIGEST_SIZE

_BACKDATED: Final = timedelta(days=1)  # so that a verifier's clock may be a little behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a launcher decides, checked."""

    mount: Path
    state: Path
    measurement: bytes
    host_data: bytes
    policy: int
    tcb: TCB

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Launch":
        if bool(args.image) == bool(args.measurement_file):
            raise ConfigError("silicon: want either --image or --measurement-file")
        if args.image:
            measurement = measure(args.image)
        else:
            measurement = _hex(_first_line(args.measurement_file), DIGEST_SIZE, "--measurement-file")
        return cls(
            mount=args.mount,
            state=args.state,
            measurement=measurement,
            host_data=_hex(args.host_data, 32, "--host-data"),
            policy=POLICY | (DEBUG if args.debug_policy else 0),
            tcb=_tcb(args.tcb) if args.tcb else CURRENT_TCB,
        )


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        run(Launch.from_args(args))
    except StrongroomError as error:
        print(f"silicon: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(launch: Launch) -> None:
    """Serve reports of this launch until a signal ends it."""
    pki = kept_pki(launch.state / "pki", datetime.now(UTC).replace(microsecond=0) - _BACKDATED)
    _publish(launch.state / "ark.der", (launch.state / "pki" / "ark.der").read_bytes())
    silicon = Silicon(
        pki=pki,
        measurement=launch.measurement,
        host_data=launch.host_data,
        policy=launch.policy,
        tcb=launch.tcb,
    )
    certificates = silicon.certificates()
    entries = Entries(lambda report_data, vmpl: (silicon.report(report_data, vmpl=vmpl), certificates))
    ready = {
        "measurement": launch.measurement.hex(),
        "ark_sha256": pki.ark_sha256.hex(),
        "mount": str(launch.mount),
    }
    serve(launch.mount, entries, lambda: print(json.dumps(ready), flush=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.silicon", allow_abbrev=False)
    verb = parser.add_subparsers(metavar="VERB", required=True).add_parser("serve", allow_abbrev=False)
    verb.add_argument("--mount", type=Path, required=True, help="where the report entries appear")
    verb.add_argument("--state", type=Path, required=True, help="keeps the simulated keys, made once")
    verb.add_argument(
        "--image", action="append", metavar="[NAME=]DIR", help="a measured tree; repeat for more"
    )
    verb.add_argument(
        "--host-data", required=True, metavar="HEX64", help="what the launcher says of userdata"
    )
    verb.add_argument("--measurement-file", type=Path, metavar="FILE", help="claim this hex digest instead")
    verb.add_argument("--debug-policy", action="store_true", help="allow debugging of the guest")
    verb.add_argument("--tcb", metavar="BL,TEE,SNP,UCODE", help="patch levels, decimal")
    return parser


def _hex(text: str, size: int, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size or text != value.hex():
        raise ConfigError(f"{what}: got {text[:200]!r}, want {2 * size} lowercase hex digits")
    return value


def _tcb(text: str) -> TCB:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        raise ConfigError(f"--tcb: got {text!r}, want four numbers 0..255")
    bootloader, tee, snp, microcode = map(int, parts)
    return TCB(bootloader=bootloader, tee=tee, snp=snp, microcode=microcode)


def _first_line(path: Path) -> str:
    try:
        return path.read_text("ascii").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--measurement-file {path}: cannot be read") from error


def _publish(path: Path, contents: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(contents)
    os.replace(fresh, path)


if __name__ == "__main__":
    sys.exit(main())
