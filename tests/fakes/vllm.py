"""An engine that answers in vLLM's shapes on a unix socket, word for word what it was told, and notes what it got."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tests import ROOT

LISTING: Final = ROOT / "tests" / "vectors" / "engine" / "vllm-0.32.0.json"  # what listing.py prints
CANARY: Final = "The canary says:"
WORDS: Final = ("The", " door", " is", " open", ".")


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def described(*, embeds: bool = False) -> dict[str, Any]:
    """The interface of an engine that generates, or of one that embeds, as the real one describes it."""
    openapi: dict[str, Any] = json.loads(LISTING.read_text())["openapi"]
    for path in ("/v1/completions", "/v1/chat/completions") if embeds else ("/v1/embeddings",):
        del openapi["paths"][path]
    return openapi


@dataclass
class VLLM:
    """Knobs are read anew for each request. `asked` holds completions only, without the canary."""

    name: str = "tiny"
    healthy: bool = True
    version: str = "0.32.0"
    canary: str = "tweet"
    notes: list[Any] = field(
        default_factory=lambda: [[84, -0.5, -2.0], [87, -0.25, -3.0]]
    )  # token, logprob, next
    canary_status: int = 200
    hangs: bool = False  # completions are taken and never answered; /health goes on saying that all is well
    logprobs: Any = None  # shown with every answer
    vector: Any = field(default_factory=lambda: {"index": 0, "embedding": [0.5, -0.25]})
    describe: dict[str, Any] = field(default_factory=described)
    error: tuple[int, dict[str, Any]] | None = None
    stall_after: int | None = None  # events of a stream, after which it waits for `go`
    go: asyncio.Event = field(default_factory=asyncio.Event)
    says: tuple[str, ...] = WORDS
    repeat: int = 1  # how often a stream says its words
    break_after: int | None = None  # events of a stream, after which the connection breaks
    last: bytes = b"data: [DONE]\n\n"  # how a stream ends
    asked: list[Asked] = field(default_factory=list)
    aborted: int = 0  # requests whose connection was closed on us
    sung: int = 0
    tokens: int = 0  # that it says it has made, for anybody
    salts: list[Any] = field(default_factory=list)  # of canaries
    _runner: web.AppRunner | None = None

    async def start(self, path: Path) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/health", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/metrics/", self._metrics)
        app.router.add_get("/openapi.json", self._described)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completion)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/embeddings", self._embedding)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=86400, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.UnixSite(self._runner, str(path)).start()

    async def die(self) -> None:
        """As by SIGKILL: every connection breaks at once, nothing is said."""
        if self._runner is None:
            return
        await asyncio.sleep(
            0.1
        )  # a connection that was just accepted is not in the list yet, and would live on
        server = self._runner.server
        for handler in list(server.connections) if server is not None else []:
            if handler.transport is not None:
                handler.transport.close()
        await self._runner.cleanup()
        self._runner = None

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self.name, "object": "model", "root": "/run/model/secret-path", "max_model_len": 2048}
        return web.json_response({"object": "list", "data": [model]})

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _metrics(self, _: web.Request) -> web.Response:
        name = "vllm:generation_tokens_total"
        return web.Response(
            text=f'# HELP {name} Made.\n{name}{{engine="0",model_name="m"}} {self.tokens}.0\n'
        )

    async def _described(self, _: web.Request) -> web.Response:
        return web.json_response(self.describe)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("prompt") == CANARY:
            return await self._sing(
                body, {"index": 0, "text": self.canary, **(self._notes() if self.canary else {})}
            )
        return await self._answer(request, body, "cmpl", lambda word: {"index": 0, "text": word})

    def _notes(self) -> dict[str, Any]:
        return {
            "token_ids": [token for token, _, _ in self.notes],
            "logprobs": {
                "token_logprobs": [likely for _, likely, _ in self.notes],
                "top_logprobs": [
                    {f"token_id:{token}": likely, f"token_id:{token + 1}": after}
                    for token, likely, after in self.notes
                ],
            },
        }

    async def _sing(self, body: Any, choice: Any) -> web.Response:
        self.sung += 1
        self.salts.append(body.get("cache_salt"))
        if self.hangs:
            await asyncio.sleep(3600)
        if self.canary_status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.canary_status)
        usage = {"completion_tokens": len(self.canary)}
        return web.json_response({"choices": [choice], "data": [self.vector], "usage": usage})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["messages"][0]["content"] == CANARY:
            return await self._sing(body, {"index": 0, "message": {"content": self.canary}})
        kind = "delta" if body.get("stream") else "message"
        return await self._answer(
            request,
            body,
            "chatcmpl",
            lambda word: {"index": 0, kind: {"role": "assistant", "content": word}, "finish_reason": None},
        )

    async def _embedding(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["input"] == CANARY:
            return await self._sing(body, {"index": 0})
        self.asked.append(Asked(request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        if self.error is not None:
            return web.json_response(self.error[1], status=self.error[0])
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return web.json_response(
            {"object": "list", "data": [self.vector], "model": self.name, "usage": usage}
        )

    async def _answer(self, request: web.Request, body: Any, prefix: str, choice: Any) -> web.StreamResponse:
        self.asked.append(Asked(request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        if self.error is not None:
            return web.json_response(self.error[1], status=self.error[0])
        head = {
            "id": f"{prefix}-{request.headers.get('x-request-id')}",
            "object": "completion",
            "created": 1,
            "model": self.name,
        }
        usage = {"prompt_tokens": 3, "completion_tokens": len(self.says), "total_tokens": 3 + len(self.says)}
        try:
            if body.get("stream"):
                return await self._stream(request, body, head, choice, usage)
            if self.stall_after is not None or self.hangs:
                await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        answer = {
            **head,
            "choices": [self._shown(choice("".join(self.says)))],
            "usage": usage,
            "logprob": -0.25,
        }
        return web.json_response({**answer, "kv_transfer_params": {"remote": "host"}, "metrics": {"t": 1.5}})

    def _shown(self, choice: Any) -> Any:
        return choice if self.logprobs is None else {**choice, "logprobs": self.logprobs}

    async def _stream(
        self, request: web.Request, body: Any, head: Any, choice: Any, usage: Any
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        stall = self.stall_after
        await response.prepare(request)
        for number, word in enumerate(self.says * self.repeat):
            if number == stall:
                await self.go.wait()
            if number == self.break_after:
                assert request.transport is not None
                request.transport.close()
                return response
            await response.write(
                b"data: " + json.dumps({**head, "choices": [self._shown(choice(word))]}).encode() + b"\n\n"
            )
        if (body.get("stream_options") or {}).get("include_usage"):
            last = {**head, "choices": [], "usage": usage}
            await response.write(b"data: " + json.dumps(last).encode() + b"\n\n")
        await response.write(self.last)
        await response.write_eof()
        return response
