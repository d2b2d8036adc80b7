"""What a registry answers to who may not read yet: WWW-Authenticate, with Basic or with a place to get a token.

Source: RFC 9110 section 11; the token authentication of the Distribution project.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from strongroom.errors import ProtocolError

MAX_CHALLENGE: Final = 2048  # characters
_SCHEME: Final = re.compile(r"(?P<scheme>[A-Za-z]+)(?: +(?P<rest>.*))?")
_PARAMETER: Final = re.compile(r'\s*([A-Za-z_-]+)\s*=\s*(?:"([^"\\]*)"|([!#-+.-~\-]+))\s*(?:,|$)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """`realm` is a URL for Bearer, and of no use for Basic."""

    bearer: bool
    realm: str
    service: str | None
    scope: str | None

    @classmethod
    def parse(cls, text: str) -> "Challenge":
        """Read one challenge; ProtocolError for anything but Basic and Bearer with a realm."""
        match = _SCHEME.fullmatch(text) if len(text) <= MAX_CHALLENGE else None
        scheme = match["scheme"].lower() if match else ""
        if match is None or scheme not in ("basic", "bearer"):
            raise ProtocolError(f"authentication asked for is {text[:40]!a}, want Basic or Bearer")
        found: dict[str, str] = {}
        rest, at = match["rest"] or "", 0
        while at < len(rest):
            one = _PARAMETER.match(rest, at)
            if one is None:
                raise ProtocolError(f"authentication asked for is {text[:120]!a}, which cannot be read")
            found[one[1].lower()] = one[2] if one[2] is not None else one[3]
            at = one.end()
        if scheme == "bearer" and not found.get("realm"):
            raise ProtocolError("authentication asked for is Bearer without a realm")
        return cls(
            bearer=scheme == "bearer",
            realm=found.get("realm", ""),
            service=found.get("service"),
            scope=found.get("scope"),
        )

    def token_url(self, scope: str) -> str:
        """Where to ask for a token for `scope`, in which the registry's own wish has no say."""
        asked = {"scope": scope} if self.service is None else {"service": self.service, "scope": scope}
        return f"{self.realm}{'&' if '?' in self.realm else '?'}{urlencode(asked)}"
