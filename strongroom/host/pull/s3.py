"""Objects of an S3 bucket below one prefix, asked for path-style: https://endpoint/bucket/prefix/name.

Every request is signed for its host and its moment, and for no other; a redirect is therefore not followed.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from strongroom.errors import ConfigError
from strongroom.host.fetch import checked_url
from strongroom.host.pull.client import Ask, split
from strongroom.host.pull.credentials import Credentials
from strongroom.host.pull.sigv4 import Signer, encoded
from strongroom.host.pull.source import Source

REGION: Final = "us-east-1"
_PLACE: Final = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[!-~]{1,900}))?")
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}")
_NAMES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Bucket(Source):
    """A prefix of a bucket."""

    def __init__(
        self,
        place: str,
        credentials: Credentials,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        match = _PLACE.fullmatch(place)
        prefix = (match["prefix"] or "").rstrip("/") if match else ""
        if match is None or {"", ".", ".."} & set(prefix.split("/") if prefix else ()):
            raise ConfigError(f"url: got s3://{place[:200]!a}, want s3://bucket[/prefix]")
        region = region or REGION
        if not _REGION.fullmatch(region):
            raise ConfigError(f"region: got {region[:60]!a}, want one such as {REGION}")
        self.title = f"s3://{place.rstrip('/')}"
        self._origin, base = split(checked_url(endpoint or f"https://s3.{region}.amazonaws.com"), "endpoint:")
        self._base = "/".join(filter(None, (base.rstrip("/"), encoded(match["bucket"]), encoded(prefix))))
        self._base = self._base if self._base.startswith("/") else f"/{self._base}"
        self._signer = _signer(credentials, region)
        self._now = now

    def ask(self, name: str) -> Ask:
        path = f"{self._base}/{name}"
        secret: dict[str, str] = {}
        if self._signer is not None:
            headers = {"host": self._origin.removeprefix("https://")}
            secret = self._signer.sign(path=path, headers=headers, now=self._now())
        return Ask(origin=self._origin, path=path, secret=secret, follow=False)


def _signer(credentials: Credentials, region: str) -> Signer | None:
    key_id, secret_key = map(credentials.get, _NAMES)
    if key_id is None and secret_key is None:
        return None  # a public bucket
    if key_id is None or secret_key is None:
        raise ConfigError(f"credentials: want both {' and '.join(_NAMES)}, or none")
    token = credentials.get("AWS_SESSION_TOKEN")
    return Signer(key_id=key_id, secret_key=secret_key, session_token=token, region=region)
