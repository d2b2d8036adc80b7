"""An engine that answers in vLLM's shapes on a unix socket, word for word what it was told, and notes what it got."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

CANARY: Final = "The canary says:"
WORDS: Final = ("The", " door", " is", " open", ".")


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class VLLM:
    """Knobs are read anew for each request. `asked` holds completions only, without the canary."""

    name: str = "tiny"
    healthy: bool = True
    canary: str = "tweet"
    error: tuple[int, dict[str, Any]] | None = None
    stall_after: int | None = None  # events of a stream, after which it waits for ever
    repeat: int = 1  # how often a stream says its words
    break_after: int | None = None  # events of a stream, after which the connection breaks
    last: bytes = b"data: [DONE]\n\n"  # how a stream ends
    asked: list[Asked] = field(default_factory=list)
    aborted: int = 0  # requests whose connection was closed on us
    sung: int = 0
    _runner: web.AppRunner | None = None

    async def start(self, path: Path) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completion)
        app.router.add_post("/v1/chat/completions", self._chat)
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

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("prompt") == CANARY:
            return self._sing({"index": 0, "text": self.canary})
        return await self._answer(request, body, "cmpl", lambda word: {"index": 0, "text": word})

    def _sing(self, choice: Any) -> web.Response:
        self.sung += 1
        return web.json_response({"choices": [choice], "usage": {"completion_tokens": len(self.canary)}})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["messages"][0]["content"] == CANARY:
            return self._sing({"index": 0, "message": {"content": self.canary}})
        kind = "delta" if body.get("stream") else "message"
        return await self._answer(
            request,
            body,
            "chatcmpl",
            lambda word: {"index": 0, kind: {"role": "assistant", "content": word}, "finish_reason": None},
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
        usage = {"prompt_tokens": 3, "completion_tokens": len(WORDS), "total_tokens": 3 + len(WORDS)}
        try:
            if body.get("stream"):
                return await self._stream(request, body, head, choice, usage)
            if self.stall_after is not None:
                await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        answer = {**head, "choices": [choice("".join(WORDS))], "usage": usage, "logprob": -0.25}
        return web.json_response({**answer, "kv_transfer_params": {"remote": "host"}, "metrics": {"t": 1.5}})

    async def _stream(
        self, request: web.Request, body: Any, head: Any, choice: Any, usage: Any
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for number, word in enumerate(WORDS * self.repeat):
            if number == self.stall_after:
                await asyncio.sleep(3600)
            if number == self.break_after:
                assert request.transport is not None
                request.transport.close()
                return response
            await response.write(
                b"data: " + json.dumps({**head, "choices": [choice(word)]}).encode() + b"\n\n"
            )
        if (body.get("stream_options") or {}).get("include_usage"):
            last = {**head, "choices": [], "usage": usage}
            await response.write(b"data: " + json.dumps(last).encode() + b"\n\n")
        await response.write(self.last)
        await response.write_eof()
        return response
