"""What the door says when it says no: one exception, one JSON shape, no detail that helps an attacker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from strongroom.errors import ProtocolError
from strongroom.wire.canonical import JSON, pack_json


@dataclass(eq=False)
class Refusal(ProtocolError):  # noqa: N818 - it is an answer as much as an error
    """A request that ends here. `message` goes to the client and is never logged: it may name the client's field."""

    status: int
    code: str
    message: str = field(repr=False)
    param: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    last: bool = False  # the connection cannot carry another request

    def __str__(self) -> str:
        return f"request: refused with {self.status} {self.code}"

    def body(self) -> bytes:
        """OpenAI's error object."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error: JSON = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return pack_json({"error": error})

    @classmethod
    def field(cls, name: str, wanted: str) -> Self:
        """A field whose value we do not pass on. The value itself is not repeated."""
        return cls(400, "invalid_value", f"field {name}: want {wanted}", param=name)


def bad_request(message: str, *, code: str = "bad_request", status: int = 400) -> Refusal:
    """For broken HTTP: nothing that follows on the connection can be trusted to be a request."""
    return Refusal(status, code, message, last=True)


def not_found() -> Refusal:
    return Refusal(404, "not_found", "no such resource here")


def too_busy(message: str, *, seconds: int = 1) -> Refusal:
    return Refusal(429, "too_many_requests", message, headers={"retry-after": str(seconds)})
