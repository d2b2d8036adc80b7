"""A sealed tree in an OCI registry: an artifact whose layers are its files, each titled with its name.

Source: OCI distribution specification 1.1 (pull), OCI image specification 1.1 (manifest, annotations). Every blob has a
digest, and what has another is refused. Name and password go to the registry itself and, for a token, to the one other
host the credentials name; a registry cannot send them elsewhere.
"""

import asyncio
import re
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Final

from strongroom.errors import ConfigError, FormatError, ProtocolError, TransportError, VerifyError
from strongroom.host.fetch import Stream, checked_url
from strongroom.host.pull.attempts import Attempts
from strongroom.host.pull.challenge import Challenge
from strongroom.host.pull.client import Ask, Client, refuse, split
from strongroom.host.pull.credentials import Credentials
from strongroom.host.pull.source import Known, Source
from strongroom.sealed.index import is_name
from strongroom.wire.canonical import JSON, parse_json

TITLE: Final = "org.opencontainers.image.title"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
MAX_MANIFEST: Final = 4 << 20  # bytes, as registries have it
MAX_TOKEN: Final = 64 << 10
_PLACE: Final = re.compile(
    r"(?P<host>[A-Za-z0-9.\[\]:-]+)/(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_TOKEN: Final = re.compile(r"[!-~]+")


class Registry(Source):
    """One artifact of a registry. What it serves is known once it was opened."""

    def __init__(self, place: str, credentials: Credentials) -> None:
        match = _PLACE.fullmatch(place)
        if match is None or not (match["tag"] or match["digest"]):
            raise ConfigError(
                f"url: got oci://{place[:200]!a}, want oci://registry/repository:tag or @sha256:digest"
            )
        self.title = f"oci://{place}"
        self._origin, _ = split(checked_url(f"https://{match['host']}"), "url:")
        self._repository: Final = match["repository"]
        self._digest: Final = match["digest"]
        self._reference: Final = match["digest"] or match["tag"]
        self._login = _login(credentials)
        self._token_host = credentials.get("REGISTRY_TOKEN_HOST")
        self._authorization: str | None = None
        self._asking = asyncio.Lock()
        self._blobs: dict[str, str] = {}

    async def open(self, client: Client) -> Mapping[str, Known] | None:
        files = _files(await self._manifest(client), self.title)
        self._blobs = {name: f"sha256:{digest.hex()}" for name, (_, digest) in files.items()}
        return {name: Known(size, digest) for name, (size, digest) in files.items()}

    def ask(self, name: str) -> Ask:
        if name not in self._blobs:
            raise ProtocolError(f"{self.title}: no layer is titled {name}")
        return self._ask(f"blobs/{self._blobs[name]}")

    async def admit(self, client: Client, asked: Ask, answer: Stream, attempts: Attempts) -> bool:
        async with self._asking:
            if self._authorization is not None and asked.secret.get("Authorization") != self._authorization:
                return True  # another request was let in meanwhile
            challenge = Challenge.parse(answer.headers.get("www-authenticate", ""))
            before, self._authorization = self._authorization, None
            if challenge.bearer:
                self._authorization = await self._token(client, challenge, attempts)
            else:
                self._authorization = self._login
            return self._authorization not in (None, before)

    async def _manifest(self, client: Client) -> bytes:
        attempts = Attempts()
        while True:
            try:
                data = await self._manifest_once(client, attempts)
            except TransportError as error:
                await attempts.pause(error, reached=0)
                continue
            if self._digest not in (None, found := f"sha256:{sha256(data).hexdigest()}"):
                raise VerifyError(f"{self.title}: digest of the manifest is {found}, want the one asked for")
            return data

    async def _manifest_once(self, client: Client, attempts: Attempts) -> bytes:
        for _ in range(2):
            ask = self._ask(f"manifests/{self._reference}", Accept=MANIFEST_TYPE)
            async with client.get(ask, max_bytes=MAX_MANIFEST) as answer:
                if answer.status == 200:
                    return await answer.read(MAX_MANIFEST)
                if answer.status != 401 or not await self.admit(client, ask, answer, attempts):
                    raise await refuse(answer, self.title, attempts)
        raise ProtocolError(
            f"{self.title}: answer is 401 to a fresh token, want credentials that may read it"
        )

    async def _token(self, client: Client, challenge: Challenge, attempts: Attempts) -> str:
        scope = f"repository:{self._repository}:pull"
        origin, path = split(challenge.token_url(scope), f"{self.title}: tokens are given at")
        trusted = origin in (self._origin, f"https://{self._token_host}")
        secret = {"Authorization": self._login} if self._login is not None and trusted else {}
        # A connection of its own: the answer that sent us here is still open on the other.
        async with client.beside() as other:
            ask = Ask(origin=origin, path=path, secret=secret, follow=False)
            async with other.get(ask, max_bytes=MAX_TOKEN) as answer:
                if answer.status != 200:
                    error = await refuse(answer, f"{self.title}: token from {origin}", attempts)
                    if self._login is None or trusted:
                        raise error
                    allow = f"REGISTRY_TOKEN_HOST={origin.removeprefix('https://')} allows it"
                    raise type(error)(f"{error}; credentials were kept from it, {allow}")
                return f"Bearer {_token_in(await answer.read(MAX_TOKEN), self.title)}"

    def _ask(self, what: str, **headers: str) -> Ask:
        secret = {} if self._authorization is None else {"Authorization": self._authorization}
        path = f"/v2/{self._repository}/{what}"
        return Ask(origin=self._origin, path=path, headers=headers, secret=secret)


def _login(credentials: Credentials) -> str | None:
    user, password = credentials.get("REGISTRY_USER"), credentials.get("REGISTRY_PASSWORD")
    if user is None and password is None:
        return None
    if user is None or password is None:
        raise ConfigError("credentials: want both REGISTRY_USER and REGISTRY_PASSWORD, or none")
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _files(data: bytes, title: str) -> dict[str, tuple[int, bytes]]:
    """Size and digest of every layer with the name of a sealed tree's file; other layers are not ours."""
    manifest = parse_json(data, f"{title}: manifest", max_bytes=MAX_MANIFEST, floats=True)
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list):
        raise FormatError(f"{title}: manifest has no layers, want an artifact of one sealed tree")
    files: dict[str, tuple[int, bytes]] = {}
    for layer in layers:
        name, size, digest = _layer(layer, title)
        if not is_name(name):
            continue
        if name in files:
            raise FormatError(f"{title}: two layers are titled {name}")
        files[name] = size, digest
    return files


def _layer(layer: JSON, title: str) -> tuple[str, int, bytes]:
    if not isinstance(layer, dict):
        raise FormatError(f"{title}: a layer is no object")
    annotations = layer.get("annotations")
    name = annotations.get(TITLE) if isinstance(annotations, dict) else None
    size, digest = layer.get("size"), layer.get("digest")
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if type(size) is not int or size < 0 or match is None:
        raise FormatError(f"{title}: a layer has no size or no sha256 digest")
    return (name if isinstance(name, str) else ""), size, bytes.fromhex(match[1])


def _token_in(data: bytes, title: str) -> str:
    value: JSON = None
    with suppress(FormatError):  # said below, without a byte of it
        value = parse_json(data, "token", max_bytes=MAX_TOKEN, floats=True)
    if isinstance(value, dict):
        token = value.get("token") or value.get("access_token")
        if isinstance(token, str) and _TOKEN.fullmatch(token):
            return token
    raise ProtocolError(f"{title}: the answer with the token holds none")
