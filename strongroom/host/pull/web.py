"""Files below one https URL, as any web server has them; and as Hugging Face has the files of a repository."""

import re
from typing import Final
from urllib.parse import quote

from strongroom.errors import ConfigError
from strongroom.host.fetch import checked_url
from strongroom.host.pull.client import Ask, split
from strongroom.host.pull.credentials import Credentials
from strongroom.host.pull.source import Source

HUGGING_FACE: Final = "https://huggingface.co"
_REPOSITORY: Final = re.compile(
    r"(?P<owner>[A-Za-z0-9][A-Za-z0-9._-]{0,95})/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,95})"
    r"(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{0,254}))?"
)


class Web(Source):
    """A directory of a web server."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.title = checked_url(url)
        self._origin, self._path = split(self.title, "url:")
        self._secret = {} if token is None else {"Authorization": f"Bearer {token}"}

    def ask(self, name: str) -> Ask:
        return Ask(origin=self._origin, path=f"{self._path.rstrip('/')}/{name}", secret=self._secret)


def web(url: str, credentials: Credentials) -> Web:
    return Web(url, credentials.get("BEARER_TOKEN"))


def hugging_face(place: str, credentials: Credentials, *, endpoint: str | None) -> Web:
    """The files of `place`, owner/repository[@revision]. Large ones lie on other hosts, which redirects lead to."""
    match = _REPOSITORY.fullmatch(place)
    if match is None or ".." in place:
        raise ConfigError(f"url: got hf://{place[:200]!a}, want hf://owner/repository[@revision]")
    revision = quote(match["revision"] or "main", safe="")
    base = f"{endpoint or HUGGING_FACE}/{match['owner']}/{match['name']}/resolve/{revision}"
    return Web(base, credentials.get("HF_TOKEN"))
