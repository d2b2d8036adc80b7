"""Credentials -> the tenant they belong to.

Tokens are known only as SHA-256. They are looked up by it in a table that Python keys anew in each process, so how long
a look-up takes says nothing about a token.
"""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from sidecars.proxy.plan import Tenant
from strongroom.host.door.refusal import Refusal

MAX_TOKEN: Final = 1024  # bytes
ANONYMOUS: Final = Tenant("")
_NOBODY: Final = bytes(32)


class Roll:
    def __init__(self, tenants: Sequence[Tenant]) -> None:
        self._by_token = {t.token_sha256: t for t in tenants if t.token_sha256 is not None}
        self._by_certificate = {t.certificate: t for t in tenants if t.certificate is not None}
        self._open = not tenants

    def admit(self, authorization: bytes | None, certificate: bytes | None) -> Tenant:
        """The tenant who has these; ANONYMOUS when there are no tenants at all. Refusal 401, the same for every reason.

        `certificate` is the DER whose key the handshake proved. A tenant that has a token and a certificate needs both.
        A tenant that has a certificate alone may send any token but another's: most clients cannot send none.
        """
        if self._open:
            return ANONYMOUS
        by_token = self._bearer(authorization)
        by_certificate = self._by_certificate.get(certificate) if certificate is not None else None
        found = by_token or by_certificate
        if (
            found is None
            or (found.token_sha256 and not by_token)
            or (found.certificate and not by_certificate)
        ):
            raise _stranger()
        if by_token and by_certificate and by_token is not by_certificate:
            raise _stranger()
        return found

    def _bearer(self, authorization: bytes | None) -> Tenant | None:
        scheme, _, token = (authorization or b"").partition(b" ")
        digest = sha256(token[:MAX_TOKEN]).digest()
        found = self._by_token.get(digest)
        same = hmac.compare_digest(_NOBODY if found is None else found.token_sha256 or _NOBODY, digest)
        return found if same and scheme.lower() == b"bearer" and len(token) <= MAX_TOKEN else None


def _stranger() -> Refusal:
    return Refusal(401, "unauthorized", "unauthorized", headers={"www-authenticate": "Bearer"})
