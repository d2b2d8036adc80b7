"""From a request to its answer, as the REST server of Confidential Containers gives it. Touches no socket.

    GET   /cdh/resource/REPOSITORY/TYPE/TAG              the secret's bytes
    GET   /aa/token?token_type=kbs                       {"token", "tee_keypair": PEM}
    GET   /aa/evidence?runtime_data=...                  evidence, in the shape the broker reads
    GET   /aa/additional-evidence?runtime_data=...       evidence of devices
    POST  /aa/aael                                       {"success": "true"} or {"success": "false", "message"}
    GET   /info                                          {"version", "tee", "additional_tees", "feature"}
    POST  /strongroom/unseal                             ours: a sealed secret in, the secret's bytes out

    400   a query or a body that is not understood
    403   no rule of this machine's userdata has it, and which one would
    404   no such path, 405 no such method there
    500   everything else. The first word of the body tells why: refused, missing, not genuine, unreachable, failed

`runtime_data` is text, or base64url where `encoding=base64` says so; it is the report data itself, at most 64 bytes.
More than 32 of them could speak for a key, and take a rule that allows raw_evidence. On Azure exactly 32 take it too.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote

from guest.coco.agent import Agent, AnswerError
from guest.coco.plan import Plan
from guest.coco.rules import Granted, Right
from guest.coco.trouble import Trouble
from guest.keysock.http import Request
from guest.keysock.plan import SHORT
from guest.keysock.rights import Caller
from strongroom.broker.resource import ResourceURI
from strongroom.errors import FormatError, PolicyError, StrongroomError, VerifyError
from strongroom.evidence.binding import SIZE
from strongroom.keys.sealed_secret import BROKER, Envelope, SealedSecret
from strongroom.wire.canonical import JSON, pack_json, parse_json, unb64u
from strongroom.wire.line import sentence

BYTES: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"
OBJECT: Final = "application/json"
MAX_BODY: Final = 64 << 10  # bytes of a request
FEATURE: Final = "all"
_RESOURCE: Final = "/cdh/resource/"
_SEALED: Final = "/strongroom/unseal"
_MAX_FIELDS: Final = 8


@dataclass(frozen=True, slots=True)
class Reply:
    status: HTTPStatus
    type: str
    body: bytes = field(repr=False)


class BadRequestError(FormatError):
    """A query or a body that is not understood."""


Handler = Callable[[Granted, Request, Mapping[str, str]], Awaitable[Reply]]


class Rest:
    """Answers each caller as the plan's rules allow."""

    def __init__(self, plan: Plan, agent: Agent, *, version: str = "") -> None:
        self._rules, self._signers, self._agent = plan.rules, plan.signers, agent
        self._version = version
        self._paths: dict[str, tuple[str, Handler]] = {
            "/aa/token": ("GET", self._token),
            "/aa/evidence": ("GET", self._evidence),
            "/aa/additional-evidence": ("GET", self._devices),
            "/aa/aael": ("POST", self._aael),
            "/info": ("GET", self._info),
            _SEALED: ("POST", self._unseal),
        }

    async def answer(self, caller: Caller, request: Request) -> Reply:
        """The answer, whatever it is: no error leaves here."""
        path, _, query = request.target.partition("?")
        found = ("GET", self._resource) if path.startswith(_RESOURCE) else self._paths.get(path)
        if found is None:
            return _no(HTTPStatus.NOT_FOUND, "no such path")
        method, handler = found
        if request.method != method:
            return _no(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is no method of it, want {method}")
        try:
            return await handler(self._rules.of(caller), request, _fields(query))
        except StrongroomError as error:
            return _failure(error)

    async def _resource(self, granted: Granted, request: Request, _: Mapping[str, str]) -> Reply:
        path = unquote(request.target.partition("?")[0].removeprefix(_RESOURCE))
        return Reply(HTTPStatus.OK, BYTES, await self._given(granted, path))

    async def _given(self, granted: Granted, path: str) -> bytes:
        try:
            ResourceURI.from_segments(path)
        except FormatError as error:
            raise BadRequestError(str(error)) from None
        granted.require_resource(path)
        return await self._agent.resource(path)

    async def _token(self, granted: Granted, _: Request, fields: Mapping[str, str]) -> Reply:
        if (kind := fields.get("token_type")) is None:
            raise BadRequestError("token_type: missing, want kbs")
        granted.require(Right.TOKEN)
        if kind != "kbs":
            raise AnswerError(f"token_type is {ascii(kind)[:40]}, and there is kbs alone", Trouble.FAILED)
        token, key = await self._agent.token()
        return _object({"token": token, "tee_keypair": key})

    async def _evidence(self, granted: Granted, _: Request, fields: Mapping[str, str]) -> Reply:
        data = _runtime_data(fields)
        is_short = len(data.rstrip(b"\0")) <= SHORT
        granted.require(Right.EVIDENCE if is_short else Right.RAW_EVIDENCE)
        raw = Right.RAW_EVIDENCE in granted.rule.allow  # which some short ones take too: the agent knows
        return _object(await self._agent.evidence(data, raw=raw))

    async def _devices(self, granted: Granted, _: Request, fields: Mapping[str, str]) -> Reply:
        data = _runtime_data(fields)
        granted.require(Right.EVIDENCE)
        return Reply(HTTPStatus.OK, OBJECT, (await self._agent.devices(data) or "{}").encode())

    async def _aael(self, granted: Granted, request: Request, _: Mapping[str, str]) -> Reply:
        match _body(request):
            case {"domain": str(domain), "operation": str(operation), "content": str(content)}:
                pass
            case _:
                raise BadRequestError("body: want domain, operation and content")
        granted.require(Right.AAEL)
        caller = granted.caller.name
        try:
            await self._agent.extend(caller=caller, domain=domain, operation=operation, content=content)
        except StrongroomError as error:
            return _object({"success": "false", "message": _said(error)})
        return _object({"success": "true"})

    async def _info(self, _: Granted, __: Request, ___: Mapping[str, str]) -> Reply:
        tee = await self._agent.kind()
        return _object({"version": self._version, "tee": tee, "additional_tees": [], "feature": FEATURE})

    async def _unseal(self, granted: Granted, request: Request, _: Mapping[str, str]) -> Reply:
        try:
            text = request.body.decode("ascii").strip()
            sealed = SealedSecret.parse(text)
        except (UnicodeDecodeError, FormatError) as error:
            raise BadRequestError(str(error)) from None
        if (key := self._signers.get(sealed.kid)) is None:
            raise PolicyError(
                f"sealed secret: no signer {ascii(sealed.kid)[:80]}, want one in strongroom.coco.signers"
            )
        content = sealed.verify(key)
        if content.provider != BROKER:
            raise FormatError(f"sealed secret: provider is {ascii(content.provider)[:40]}, want {BROKER}")
        if isinstance(content, Envelope):
            secret = content.open(await self._given(granted, _path(content.key_id)))
        else:
            secret = await self._given(granted, _path(content.name))
        return Reply(HTTPStatus.OK, BYTES, secret)


def _path(uri: str) -> str:
    """REPOSITORY/TYPE/TAG of a kbs:/// URI."""
    parsed = ResourceURI.parse(uri)
    return f"{parsed.repository}/{parsed.type}/{parsed.tag}"


def _fields(query: str) -> dict[str, str]:
    """Every field of a query; BadRequestError for more of them, or the same one twice."""
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:  # UnicodeDecodeError is one
        raise BadRequestError("query: not understood, want NAME=VALUE&...") from None
    if len(dict(pairs)) != len(pairs):
        raise BadRequestError("query: a name appears twice")
    return dict(pairs)


def _runtime_data(fields: Mapping[str, str]) -> bytes:
    if (text := fields.get("runtime_data")) is None:
        raise BadRequestError("runtime_data: missing")
    if (encoding := fields.get("encoding")) not in (None, "base64"):
        raise BadRequestError(f"encoding: got {ascii(encoding)[:40]}, want base64 or none")
    try:
        data = text.encode() if encoding is None else unb64u(text, "runtime_data")
    except FormatError as error:
        raise BadRequestError(str(error)) from None
    if len(data) > SIZE:
        raise BadRequestError(f"runtime_data: {len(data)} bytes, want at most {SIZE}")
    return data


def _body(request: Request) -> JSON:
    try:
        return parse_json(request.body, "body", max_bytes=MAX_BODY)
    except FormatError as error:
        raise BadRequestError(str(error)) from None


def _object(value: JSON) -> Reply:
    return Reply(HTTPStatus.OK, OBJECT, pack_json(value))


def _no(status: HTTPStatus, said: str) -> Reply:
    return Reply(status, TEXT, sentence(said).encode())


def _failure(error: StrongroomError) -> Reply:
    if isinstance(error, BadRequestError):
        return _no(HTTPStatus.BAD_REQUEST, str(error))
    if isinstance(error, PolicyError):
        return _no(HTTPStatus.FORBIDDEN, f"{Trouble.NOT_ALLOWED}: {error}")
    if isinstance(error, AnswerError) and error.trouble is Trouble.NOT_ALLOWED:
        return _no(HTTPStatus.FORBIDDEN, _said(error))
    return _no(HTTPStatus.INTERNAL_SERVER_ERROR, _said(error))


def _said(error: StrongroomError) -> str:
    if isinstance(error, AnswerError):
        return f"{error.trouble}: {error}"
    return f"{Trouble.NOT_GENUINE if isinstance(error, VerifyError) else Trouble.FAILED}: {error}"
