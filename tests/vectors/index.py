"""A set of vectors as its index.json describes it. Nothing here knows a file name, an id or a figure of any set.

{"set": text, "generated": "YYYY-MM-DD",
 "vectors": [{"id", "kind", "files": {role: path | [path, ...]}, "expect": {...}, "notes"}, ...],
 "files": {path: {"sha256", ...}, ...}}
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

Window = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Vector:
    """One vector; `paths` by role, each a list."""

    id: str
    kind: str
    paths: Mapping[str, tuple[str, ...]]
    expect: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass(frozen=True)
class VectorSet:
    """A directory with an index.json."""

    directory: Path
    name: str
    generated: datetime
    vectors: tuple[Vector, ...]
    digests: Mapping[str, str]  # sha256 in hex by path

    @classmethod
    def load(cls, directory: Path) -> Self:
        index = json.loads((directory / "index.json").read_text())
        return cls(
            directory=directory,
            name=index["set"],
            generated=datetime.fromisoformat(index["generated"]).replace(tzinfo=UTC),
            vectors=tuple(_vector(entry) for entry in index["vectors"]),
            digests={path: entry["sha256"] for path, entry in index.get("files", {}).items()},
        )

    def bytes_at(self, path: str) -> bytes:
        """The file, which must be the one the index describes."""
        raw = (self.directory / path).read_bytes()
        if (digest := self.digests.get(path)) is not None and hashlib.sha256(raw).hexdigest() != digest:
            raise ValueError(f"{path}: not the file the index describes (sha256 differs)")
        return raw

    def read(self, vector: Vector, role: str) -> bytes:
        (path,) = vector.paths[role]
        return self.bytes_at(path)

    def beside(self, vector: Vector, role: str, name: str) -> bytes:
        """A file named inside another file, relative to it."""
        (path,) = vector.paths[role]
        return self.bytes_at(str(Path(path).parent / name))

    @cached_property
    def issuers(self) -> tuple[x509.Certificate, ...]:
        """Every certificate of the set that may issue others: hints, as pins decide what they are worth."""
        found: dict[bytes, x509.Certificate] = {}
        for path in [*self.digests, *(p for v in self.vectors for ps in v.paths.values() for p in ps)]:
            for certificate in certificates(self.bytes_at(path)):
                if _issues(certificate):
                    found[certificate.public_bytes(Encoding.DER)] = certificate
        return tuple(found.values())

    def issuer_of(self, certificate: x509.Certificate) -> x509.Certificate | None:
        """The one the set has, by name alone."""
        wanted = certificate.issuer.public_bytes()
        return next((issuer for name, issuer in self._by_name if name == wanted), None)

    @cached_property
    def _by_name(self) -> tuple[tuple[bytes, x509.Certificate], ...]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # names longer than they may be
            return tuple((issuer.subject.public_bytes(), issuer) for issuer in self.issuers)

    def path_of(self, certificate: x509.Certificate) -> list[x509.Certificate]:
        """Issuer, its issuer, and so on to a self-issued one, as far as the set has them."""
        found: list[x509.Certificate] = []
        while len(found) < 8 and (issuer := self.issuer_of(certificate)) is not None:
            found.append(issuer)
            if issuer.subject == issuer.issuer:
                break
            certificate = issuer
        return found

    def moment(self, windows: Iterable[Window]) -> datetime:
        """When to judge evidence that names no date: the day of the set, or the middle of all validities."""
        windows = list(windows)
        start = max((w[0] for w in windows), default=self.generated)
        end = min((w[1] for w in windows), default=self.generated)
        if start <= self.generated <= end:
            return self.generated
        return start + (end - start) / 2 if start < end else self.generated


def certificates(raw: bytes) -> list[x509.Certificate]:
    """What certificates a file holds, PEM or DER; none when it is something else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # serial numbers of zero
            return _certificates(raw)
    except ValueError:
        return []


def _certificates(raw: bytes) -> list[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" in raw:
        return x509.load_pem_x509_certificates(raw.rstrip(b"\0"))
    return [x509.load_der_x509_certificate(raw)] if raw[:1] == b"\x30" else []


def window(certificate: x509.Certificate) -> Window:
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def days(start: str, end: str) -> Window:
    """A validity given in whole days."""
    first, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (start, end))
    return first + timedelta(days=1), last


def _vector(entry: dict[str, Any]) -> Vector:
    paths = {role: (path,) if isinstance(path, str) else tuple(path) for role, path in entry["files"].items()}
    return Vector(entry["id"], entry["kind"], paths, entry["expect"])


def _issues(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound):
        return False


def kinds(vectors: Iterable[Vector]) -> Iterator[str]:
    """Every kind once, in the order of the index."""
    yield from dict.fromkeys(vector.kind for vector in vectors)
