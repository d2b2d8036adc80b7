"""`make bench-ingress`: CPU time and latency of the door for one request, and for one token of a stream.

Prints figures and judges none; one JSON line comes last. What is not installed (haproxy, nginx) is named and left out.
A C compiler and OpenSSL's headers are needed (apt install gcc libssl-dev).
"""

import argparse
import json
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bench.ingress import report
from bench.ingress.cases import CASES, measure
from bench.ingress.subjects import SUBJECTS, Place
from strongroom.errors import StrongroomError
from strongroom.host.run import run

MEMORY: Final = Path("/dev/shm")  # a tmpfs on every Linux; our folder in it is private
_SOURCES: Final = {"engine": [], "load": ["-lssl", "-lcrypto"]}


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    rounds, seconds = (2, 1.0) if arguments.quick else (arguments.rounds, arguments.seconds)
    subjects = [
        one for one in SUBJECTS if one.is_there and (not arguments.subject or one.name in arguments.subject)
    ]
    notes = [f"{one.name} is not installed" for one in SUBJECTS if not one.is_there]
    notes += [f"{one.name} is {version}" for one in subjects if (version := one.version())]
    notes += [f"{one.name}: {one.what}" for one in subjects]
    try:
        with tempfile.TemporaryDirectory(
            prefix="strongroom-bench-", dir=MEMORY if MEMORY.is_dir() else None
        ) as folder:
            work = Path(folder)
            work.chmod(0o755)
            place = _place(work)
            _compile(work)
            cases = [case for case in CASES if not arguments.only or case.name in arguments.only]
            measured = [
                measure(case, subjects, place, work, rounds=rounds, seconds=seconds) for case in cases
            ]
    except StrongroomError as error:
        print(f"bench-ingress: {error}", file=sys.stderr)
        return error.exit_code
    print(report.text(measured, notes))
    print(json.dumps(report.to_json(measured)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.ingress", description="The door beside plain proxies.")
    parser.add_argument("--quick", action="store_true", help="two rounds of a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a round")
    parser.add_argument(
        "--only", action="append", default=[], metavar="CASE", choices=[case.name for case in CASES]
    )
    parser.add_argument("--subject", action="append", default=[], choices=[one.name for one in SUBJECTS])
    return parser


def _compile(work: Path) -> None:
    for name, libraries in _SOURCES.items():
        source = Path(__file__).with_name(f"{name}.c")
        run(["cc", "-O2", "-o", str(work / name), str(source), *libraries], timeout=120)


def _place(work: Path) -> Place:
    """A certificate for everybody, of the kind that the door shows."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    shown = certificate.public_bytes(Encoding.PEM)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for file, content in (("certificate.pem", shown), ("key.pem", private), ("both.pem", shown + private)):
        (work / file).write_bytes(content)
    return Place(work, work / "engine.sock", work / "certificate.pem", work / "key.pem", work / "both.pem")


if __name__ == "__main__":
    sys.exit(main())
