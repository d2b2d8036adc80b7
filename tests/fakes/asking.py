"""A client of a door on loopback, with the standard library alone: bodies as they come, no evidence looked at."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse, HTTPSConnection
from typing import Any

WITHIN = 60.0  # seconds


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def connection(port: int, *, source: str = "127.0.0.1") -> HTTPSConnection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return HTTPSConnection("127.0.0.1", port, timeout=WITHIN, context=context, source_address=(source, 0))


@contextmanager
def asking(
    port: int,
    method: str,
    target: str,
    body: Any = None,
    *,
    token: str | None = None,
    source: str = "127.0.0.1",
) -> Iterator[HTTPResponse]:
    """The head of an answer, whose body is still to be read. `body` is bytes, or what becomes JSON."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    if body is not None:
        headers["content-type"] = "application/json"
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
    client = connection(port, source=source)
    try:
        client.request(method, target, body=body, headers=headers)
        yield client.getresponse()
    finally:
        client.close()


def ask(
    port: int,
    method: str,
    target: str,
    body: Any = None,
    *,
    token: str | None = None,
    source: str = "127.0.0.1",
) -> Answer:
    with asking(port, method, target, body, token=token, source=source) as response:
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())


def chat(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": prompt}], **fields}


def said(stream: bytes) -> str:
    """The text of a streamed chat or completion."""
    events = [json.loads(line[6:]) for line in stream.split(b"\n\n") if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in event.get("choices", ())]
    return "".join(
        choice.get("text") or (choice.get("delta") or {}).get("content") or "" for choice in choices
    )
