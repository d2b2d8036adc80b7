"""Who may ask, how much at once, and whose prefix cache they see. No sockets, no clock, no randomness.

Bearer tokens are known only as SHA-256. A tenant's cache salt is a keyed hash under a key that lives for one
process, so salts of two tenants, of two boots, or guessed by a client never meet.
"""

import hmac
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

from sidecars.proxy.plan import Cache, Tenant
from strongroom.host.door.refusal import Refusal, too_busy
from strongroom.wire.canonical import b64u
from strongroom.wire.framing import enc

MAX_IN_FLIGHT: Final = 256  # completions of all tenants together
MAX_PER_TENANT: Final = 64  # completions of one tenant; everyone anonymous is one tenant
MAX_TOKEN: Final = 1024  # bytes of a bearer token
ANONYMOUS: Final = Tenant("", b"")
_SALT_LABEL: Final = b"strongroom/cache-salt/v1"


class Gate:
    def __init__(
        self,
        tenants: Sequence[Tenant],
        *,
        cache: Cache,
        salt_key: bytes,
        most: int = MAX_IN_FLIGHT,
        most_each: int = MAX_PER_TENANT,
    ) -> None:
        self._tenants = tuple(tenants)
        self._cache = cache
        self._salt_key = salt_key
        self._most, self._most_each = most, most_each
        self._inside = Counter[str]()

    def admit(self, authorization: bytes | None) -> Tenant:
        """The tenant whose token this header carries; ANONYMOUS when no tenants are configured. Refusal 401."""
        if not self._tenants:
            return ANONYMOUS
        scheme, _, token = (authorization or b"").partition(b" ")
        digest = sha256(token[:MAX_TOKEN]).digest()
        found: Tenant | None = None
        for tenant in self._tenants:  # all of them, always: time tells nothing of where a token sits
            if hmac.compare_digest(tenant.token_sha256, digest):
                found = tenant
        if found is None or scheme.lower() != b"bearer" or len(token) > MAX_TOKEN:
            raise Refusal(401, "unauthorized", "unauthorized", headers={"www-authenticate": "Bearer"})
        return found

    @contextmanager
    def entered(self, tenant: Tenant) -> Iterator[None]:
        """Hold one place while a completion runs. Refusal 429 when there is none."""
        if self._inside.total() >= self._most or self._inside[tenant.name] >= self._most_each:
            raise too_busy("too many requests in flight")
        self._inside[tenant.name] += 1
        try:
            yield
        finally:
            self._inside[tenant.name] -= 1

    def salt(self, tenant: Tenant, namespace: str, *, fresh: bytes) -> str:
        """The engine's cache_salt: 43 base64url characters.

        `namespace` is the client's own cache_salt, mixed in under the tenant's; `fresh` are random bytes, used
        where no two requests may share a cache.
        """
        alone = self._cache is Cache.REQUEST or tenant is ANONYMOUS
        parts = (_SALT_LABEL, tenant.name.encode(), namespace.encode(), fresh if alone else b"")
        return b64u(hmac.digest(self._salt_key, b"".join(map(enc, parts)), "sha256"))
