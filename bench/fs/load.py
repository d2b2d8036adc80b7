"""Loads weights as engines do, for a bench that is another process. Runs in the engine's own environment.

    python load.py DESCRIPTOR

DESCRIPTOR is a socket that brings one JSON object a line, {"how", "files", "since"}, and gets one back: {"bytes",
"seconds", "cpu"} or {"error"}. Every tensor is copied to one destination buffer. The first answer is {"ways"}.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch  # type: ignore[import-not-found]
from vllm.model_executor.model_loader import weight_utils  # type: ignore[import-not-found]

try:
    from runai_model_streamer import SafetensorsStreamer  # type: ignore[import-not-found]
except ImportError:
    SafetensorsStreamer = None

Tensors = Iterator[tuple[str, torch.Tensor]]


def default(files: list[str]) -> Tensors:
    yield from weight_utils.safetensors_weights_iterator(files, use_tqdm_on_load=False)


def prefetch(files: list[str]) -> Tensors:
    yield from weight_utils.safetensors_weights_iterator(
        files, use_tqdm_on_load=False, safetensors_load_strategy="prefetch"
    )


def streamer(files: list[str]) -> Tensors:
    with SafetensorsStreamer() as opened:
        opened.stream_files(files)
        yield from opened.get_tensors()


WAYS: dict[str, Callable[[list[str]], Tensors]] = {"default": default, "prefetch": prefetch}
if SafetensorsStreamer is not None:
    WAYS["streamer"] = streamer


def load(way: Callable[[list[str]], Tensors], files: list[str], out: torch.Tensor) -> int:
    """Bytes of all tensors, each of them copied out."""
    total = 0
    for _, tensor in way(files):
        piece = tensor.reshape(-1).view(torch.uint8)
        out[: piece.numel()].copy_(piece)
        total += piece.numel()
    return total


def main() -> None:
    torch.set_num_threads(1)
    out = torch.empty(256 << 20, dtype=torch.uint8).fill_(1)
    connection = socket.socket(fileno=int(sys.argv[1]))
    with connection.makefile("rw") as channel:
        _say(channel, {"ways": list(WAYS)})
        for line in channel:
            asked = json.loads(line)
            cpu, begun = time.process_time(), time.monotonic()
            try:
                total = load(WAYS[asked["how"]], asked["files"], out)
            except Exception as error:  # noqa: BLE001 - whatever a loader raises is the other side's to tell
                _say(channel, {"error": str(error).splitlines()[0] if str(error) else type(error).__name__})
                continue
            seconds = time.monotonic() - (asked["since"] or begun)
            _say(channel, {"bytes": total, "seconds": seconds, "cpu": time.process_time() - cpu})


def _say(channel: Any, answer: dict[str, Any]) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
