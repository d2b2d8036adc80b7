"""The methods of Tappd, dstack's interface before 0.4, for images and programs that still speak it.

Tappd.DeriveKey gives a certificate for a key that the path decides. The same bytes are the path's key in GetKey, on
another curve: so it takes the right to that path. A certificate that says more than the path, or a key of its own,
is what GetTlsKey gives, and takes that right too.
"""

import secrets
from dataclasses import dataclass
from typing import Final

from guest.keysock.doors import Route, Table
from guest.keysock.dstack import Service, hex_chain
from guest.keysock.fields import Fields
from guest.keysock.keyring import MAX_NAMES
from guest.keysock.rights import Granted, Method
from strongroom.errors import FormatError
from strongroom.evidence.binding import is_reserved
from strongroom.evidence.dstack_log import pack as pack_log
from strongroom.keys import tappd
from strongroom.wire.canonical import JSON

MAX_DATA: Final = 64 << 10  # bytes that are hashed
MAX_KECCAK: Final = 4 << 10  # bytes: our own Keccak takes a fifth of a millisecond for 136


@dataclass(frozen=True, slots=True)
class Tappd:
    service: Service

    def table(self) -> Table:
        """These, and the methods of v0: released clients of Tappd call them under its name."""
        return self.service.v0() | {
            "DeriveKey": Route(Method.GET_KEY, self.derive_key),
            "DeriveK256Key": Route(Method.GET_KEY, self.derive_k256_key),
            "TdxQuote": Route(Method.GET_QUOTE, self.tdx_quote),
            "RawQuote": Route(Method.GET_QUOTE, self.raw_quote),
        }

    async def derive_key(self, granted: Granted, fields: Fields) -> JSON:
        path = fields.text("path")
        granted.require_path(path)
        if _certifies_more(fields, path):
            granted.require(Method.GET_TLS_KEY)
        seed = secrets.token_bytes(32) if fields.flag("random_seed") else None
        key = self.service.keys.app.tappd_key(path, seed=seed)
        return await self.service.issued(granted, fields, key, server=True)

    def derive_k256_key(self, granted: Granted, fields: Fields) -> JSON:
        path, purpose = fields.text("path"), self.service.purpose(fields)
        granted.require_path(path)
        claim = self.service.keys.app.claim_v0(path, purpose, "secp256k1")
        return {"k256_key": claim.key.hex(), "k256_signature_chain": hex_chain(claim.chain)}

    async def tdx_quote(self, granted: Granted, fields: Fields) -> JSON:
        data, name, prefix = fields.hex("report_data"), fields.text("hash_algorithm"), fields.text("prefix")
        most = MAX_KECCAK if name.startswith("keccak") else MAX_DATA
        if len(data) > most:
            raise FormatError(f"report_data: {len(data)} bytes, want at most {most}")
        made = tappd.report_data(data, hash=name, prefix=prefix)
        if name == tappd.RAW:
            return await self._quoted(granted, made, name, prefix)
        name, prefix = name or tappd.DEFAULT_HASH, prefix or tappd.DEFAULT_PREFIX
        # Hashed under this prefix, which no key's report data have, any bytes do no harm. Under another they might.
        harmless = prefix == tappd.DEFAULT_PREFIX and not is_reserved(made)
        return await self._quoted(granted, made, name, prefix, checked=harmless)

    async def raw_quote(self, granted: Granted, fields: Fields) -> JSON:
        data = fields.hex("report_data")
        if len(data) != tappd.SIZE:
            raise FormatError(f"report_data: {len(data)} bytes, want exactly {tappd.SIZE}")
        return await self._quoted(granted, data, tappd.RAW, "")

    async def _quoted(
        self, granted: Granted, data: bytes, name: str, prefix: str, *, checked: bool = False
    ) -> JSON:
        quotes = self.service.quotes
        quoted = await (quotes.over(granted, data) if checked else quotes.chosen(granted, data))
        return {
            "quote": quotes.quote(quoted).hex(),
            "event_log": pack_log(self.service.machine.log(quoted.log)),
            "hash_algorithm": name,
            "prefix": prefix,
        }


def _certifies_more(fields: Fields, path: str) -> bool:
    """Whether the certificate is to have a name other than the path, or anything that speaks for this machine."""
    flags = ("random_seed", "usage_ra_tls", "usage_client_auth", "with_app_info")
    return (
        fields.text("subject") not in ("", path)
        or bool(fields.texts("alt_names", most=MAX_NAMES))
        or any(fields.flag(flag) for flag in flags)
    )
