"""Every key this process can give or use, all from one root.

An authority signs the certificates of this machine's programs. It is made anew at every start from the same key, so a
certificate of an earlier one still leads to it.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from guest.keysock.plan import app_keys
from strongroom.errors import FormatError, PolicyError
from strongroom.keys.dstack import AppKeys
from strongroom.keys.epochs import Kind, PrivateKey, Use, derive_epoch, load
from strongroom.ratls.dstack import Request, authority, leaf

DEFAULT_LIFETIME: Final = timedelta(days=7)
MAX_LIFETIME: Final = timedelta(days=397)
MAX_NAMES: Final = 64
_BACKDATED: Final = timedelta(minutes=5)  # for peers whose clocks are behind
_AUTHORITY: Final = timedelta(days=3650)
_KEPT: Final = 256  # signing keys


@dataclass(frozen=True, slots=True)
class Keyring:
    app: AppKeys = field(repr=False)
    epoch: int  # the newest
    certificate: x509.Certificate | None  # of the authority; None where a service signs
    _signing: dict[tuple[str, str, int], PrivateKey] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, root: bytes, *, epoch: int, now: datetime) -> "Keyring":
        """The keys of a root (32 bytes, or an .appkeys.json)."""
        app = app_keys(root)
        return cls(app, epoch, _authority(app, now))

    @property
    def certificate_pem(self) -> str:
        return "" if self.certificate is None else _pem(self.certificate)

    def secret(self, path: str, kind: Kind, epoch: int | None) -> bytes:
        """32 bytes that are given out."""
        return self._derived(path, Use.EXPORT, kind, epoch)

    def signing_key(self, path: str, kind: Kind, epoch: int | None) -> PrivateKey:
        """A key that stays here."""
        name = path, str(kind), self._epoch(epoch)
        if (kept := self._signing.get(name)) is not None:
            return kept
        key = load(self._derived(path, Use.SIGN, kind, epoch), kind)
        while len(self._signing) >= _KEPT:
            self._signing.pop(next(iter(self._signing)))  # the oldest
        self._signing[name] = key
        return key

    def certified(
        self,
        key: ec.EllipticCurvePrivateKey,
        request: Request,
        extensions: Sequence[x509.UnrecognizedExtension] = (),
    ) -> list[str]:
        """The PEM chain of a certificate for `key`, leaf first. PolicyError where a service signs, not we."""
        if self.certificate is None or self.app.ca_key is None:
            raise PolicyError("certificate: the key service that issued the root signs here, want it asked")
        made = leaf(
            key.public_key(),
            request,
            issuer=self.certificate,
            issuer_key=self.app.ca_key,
            serial=secrets.randbits(127) + 1,
            extensions=extensions,
        )
        return [_pem(made), self.certificate_pem]

    def _derived(self, path: str, use: Use, kind: Kind, epoch: int | None) -> bytes:
        return derive_epoch(self.app.app_root, use=use, kind=kind, path=path, epoch=self._epoch(epoch))

    def _epoch(self, epoch: int | None) -> int:
        if epoch is None:
            return self.epoch
        if not 0 < epoch <= self.epoch:
            raise FormatError(f"epoch: got {epoch}, want 1..{self.epoch}, the one that userdata says")
        return epoch


def window(
    now: datetime, not_before: datetime | None, not_after: datetime | None
) -> tuple[datetime, datetime]:
    """When a certificate is good: a week unless asked for otherwise, 397 days at most."""
    start = not_before or now - _BACKDATED
    if start > now + MAX_LIFETIME:
        raise FormatError(f"not_before: more than {MAX_LIFETIME.days} days from now")
    end = not_after or max(start, now) + DEFAULT_LIFETIME
    if start >= end:
        raise FormatError("not_before must be earlier than not_after")
    if end - start > MAX_LIFETIME + _BACKDATED:
        raise FormatError(
            f"not_after: {(end - start).days} days after not_before, want at most {MAX_LIFETIME.days}"
        )
    return start, end


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _authority(app: AppKeys, now: datetime) -> x509.Certificate | None:
    if app.ca_key is None:
        return None
    if app.ca_certificate:
        return x509.load_pem_x509_certificate(app.ca_certificate.encode())
    return authority(
        app.ca_key,
        not_before=now - _BACKDATED,
        not_after=now + _AUTHORITY,
        serial=secrets.randbits(127) + 1,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
