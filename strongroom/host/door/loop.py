"""The event loop a door runs on: uvloop's, which takes half the time of asyncio's own for a short request."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. On asyncio's own loop where uvloop is not installed."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return asyncio.run(work)
    os.environ.setdefault("UV_USE_IO_URING", "0")  # a large part of the kernel, and nothing here needs it
    return uvloop.run(work)
