"""The engine's cache_salt for one request: who may meet whom in its prefix cache.

A keyed hash under a key of this boot, so salts of two tenants, of two boots, or guessed by a client never meet.
"""

import hmac
from collections.abc import Callable
from typing import Final

from sidecars.proxy.plan import Cache, Tenant
from sidecars.proxy.tenants.roll import ANONYMOUS
from strongroom.wire.canonical import b64u
from strongroom.wire.framing import enc

_LABEL: Final = b"strongroom/cache-salt/v1"
_FRESH: Final = 32  # bytes


class Salts:
    """`random` makes bytes, used where no two requests may share a cache."""

    def __init__(self, key: bytes, *, cache: Cache, random: Callable[[int], bytes]) -> None:
        self._key, self._cache, self._random = key, cache, random
        self._plain: dict[str, str] = {}  # of tenants that ask for nobody in particular: most requests

    def salt(self, tenant: Tenant, *, namespace: str, user: str) -> str:
        """43 base64url characters.

        `namespace` is the client's own cache_salt, mixed in under the tenant's. `user` is whom an aggregator says it
        asks for, and of no effect with others. An aggregator's request that names nobody shares with none.
        """
        person = user if tenant.aggregator else ""
        named = bool(namespace or person)
        if self._cache is Cache.REQUEST or tenant is ANONYMOUS or (tenant.aggregator and not named):
            return self._salt(tenant.name, namespace, person, self._random(_FRESH))
        if named:
            return self._salt(tenant.name, namespace, person, b"")
        if (plain := self._plain.get(tenant.name)) is None:
            plain = self._plain[tenant.name] = self._salt(tenant.name, "", "", b"")
        return plain

    def _salt(self, name: str, namespace: str, person: str, fresh: bytes) -> str:
        parts = (_LABEL, name.encode(), namespace.encode(), person.encode(), fresh)
        return b64u(hmac.digest(self._key, b"".join(map(enc, parts)), "sha256"))
