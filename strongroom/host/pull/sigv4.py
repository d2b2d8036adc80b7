"""AWS Signature Version 4 of a GET, as S3 and all that speak like it want it.

Source: Amazon S3 API reference, "Authenticating Requests: Using the Authorization Header".
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from urllib.parse import quote

NO_BODY: Final = sha256(b"").hexdigest()
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Whose key, and for which region and service."""

    key_id: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str
    service: str = "s3"

    def sign(
        self, *, method: str = "GET", path: str, query: str = "", headers: Mapping[str, str], now: datetime
    ) -> dict[str, str]:
        """The headers to add to a request without a body: date, digest and Authorization.

        `path` and `query` are percent-encoded as they will be sent, `query` sorted; `headers` holds host and whatever
        else is to be signed.
        """
        moment = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        added = {"x-amz-date": moment}
        if self.service == "s3":
            added["x-amz-content-sha256"] = NO_BODY
        if self.session_token is not None:
            added["x-amz-security-token"] = self.session_token
        signed = {name.lower(): " ".join(value.split()) for name, value in {**headers, **added}.items()}
        names = ";".join(sorted(signed))
        lines = [
            method,
            path,
            query,
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            NO_BODY,
        ]
        scope = f"{moment[:8]}/{self.region}/{self.service}/aws4_request"
        digest = sha256("\n".join(lines).encode()).hexdigest()
        signature = hmac.new(self._key(scope), f"{_ALGORITHM}\n{moment}\n{scope}\n{digest}".encode(), sha256)
        credential = f"{_ALGORITHM} Credential={self.key_id}/{scope}"
        said = f"{credential},SignedHeaders={names},Signature={signature.hexdigest()}"
        return {**added, "Authorization": said}

    def _key(self, scope: str) -> bytes:
        key = f"AWS4{self.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), sha256).digest()
        return key


def encoded(path: str) -> str:
    """A path with every byte percent-encoded that S3 wants so: all but letters, digits and -._~/"""
    return quote(path, safe="/-._~")
