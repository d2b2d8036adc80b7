"""The same work as most would write it: aiohttp on both sides, json, hashlib, on uvloop.

It checks the token, parses the question and writes it anew with a cache_salt, hashes both bodies, and passes streams
on. It keeps no log and signs nothing.

python -m bench.ingress.plain_python ENGINE_SOCKET CERTIFICATE KEY
"""

import asyncio
import hmac
import json
import ssl
import sys
from hashlib import sha256
from typing import Final

from aiohttp import ClientSession, ClientTimeout, UnixConnector, web

from strongroom.host.door.loop import run

TOKEN: Final = sha256(b"token-of-ann").digest()


class Proxy:
    def __init__(self, engine: str) -> None:
        connector = UnixConnector(engine, limit=0)
        self._engine = ClientSession(connector=connector, timeout=ClientTimeout(total=None))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(sha256(token.encode()).digest(), TOKEN):
            return web.Response(status=401)
        body = await request.read()
        asked = sha256(body)
        question = json.loads(body)
        question["cache_salt"] = hmac.digest(TOKEN, b"ann", "sha256").hex()
        async with self._engine.post(f"http://engine{request.path}", json=question) as answer:
            if not question.get("stream"):
                whole = await answer.read()
                said = json.dumps(json.loads(whole)).encode()
                return web.Response(
                    body=said,
                    content_type="application/json",
                    headers={"x-hash": asked.hexdigest() + sha256(said).hexdigest()},
                )
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            hashed = sha256()
            async for chunk in answer.content.iter_any():
                hashed.update(chunk)
                await response.write(chunk)
            await response.write_eof()
            return response


async def main(engine: str, certificate: str, key: str) -> None:
    """Say on which port it listens, and serve until it is ended."""
    app = web.Application(client_max_size=32 << 20)
    app.router.add_post("/v1/chat/completions", Proxy(engine).answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
