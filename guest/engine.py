"""The engine's whole command line and environment, computed here from measured facts and bounded settings.

The flags and variables are those of vLLM 0.32; each is here because of what its default would let happen. The engine
starts with an empty environment: it would otherwise read hundreds of variables, and PYTHONPATH besides.
"""

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guest.config import Config
from strongroom.errors import MachineError
from strongroom.wire.canonical import JSON, pack_json

UNIT: Final = "strongroom-engine.service"
SOCKET: Final = "/run/strongroom-engine/engine.sock"
SCRATCH: Final = "/run/strongroom-engine"  # a private tmpfs path: caches, worker sockets, home
MOUNT: Final = "/run/strongroom/model"
_KEEP_ALIVE: Final = (
    86400  # seconds: the door watches an idle connection, which must not be closed for idleness
)


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What will run. `flags` is public and measured; `environment` holds nothing secret but is never published."""

    version: str
    python: Path
    flags: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]

    @property
    def flags_sha256(self) -> str:
        return hashlib.sha256(pack_json(list(self.flags))).hexdigest()

    def claim(self) -> dict[str, JSON]:
        """The `engine` event of the log."""
        return {
            "name": "vllm",
            "version": self.version,
            "flags": list(self.flags),
            "flags_sha256": self.flags_sha256,
        }

    def credential(self) -> bytes:
        """What guest/launch.py executes."""
        argv = [str(self.python), "-m", "vllm.entrypoints.cli.main", *self.flags]
        return json.dumps({"argv": argv, "environment": dict(self.environment), "socket": SOCKET}).encode()


def plan(config: Config, venv: Path) -> EnginePlan:
    """The plan for `config` with the engine installed in `venv`; MachineError when there is no engine there."""
    return EnginePlan(
        version=installed_version(venv),
        python=venv / "bin" / "python",
        flags=_flags(config),
        environment=tuple(sorted(_environment(config).items())),
    )


def installed_version(venv: Path) -> str:
    """The version of the `vllm` distribution in a virtual environment, read from its metadata."""
    found = sorted(venv.glob("lib/python3.*/site-packages/vllm-*.dist-info/METADATA"))
    if len(found) != 1:
        raise MachineError(f"engine: found {len(found)} vllm distributions in {venv}, want 1")
    for line in found[0].read_text("utf-8", "replace").splitlines():
        if line.startswith("Version: "):
            return line.removeprefix("Version: ").strip()
    raise MachineError(f"engine: {found[0]} names no version")


def _flags(config: Config) -> tuple[str, ...]:
    engine = config.engine
    flags = [
        "serve", MOUNT,
        "--uds", SOCKET,
        "--served-model-name", config.model.name,
        "--load-format", "safetensors",
        "--generation-config", "vllm",  # the model's own file would change sampling defaults
        "--no-trust-remote-code",
        # no --disable-fastapi-docs: the door reads /openapi.json before it opens, and nobody else reaches the socket
        "--disable-uvicorn-access-log",
        "--no-enable-log-requests",
        "--no-enable-log-outputs",
        "--no-log-error-stack",
        "--enable-prefix-caching",
        "--prefix-caching-hash-algo", "sha256",
        "--max-model-len", str(engine.max_model_len),
        "--max-num-seqs", str(engine.max_num_seqs),
        "--max-num-queued-reqs", str(engine.max_num_seqs * 8),
        "--dtype", engine.dtype,
        "--max-logprobs", "5",
        "--fail-on-environ-validation",
        "--seed", "0",
    ]  # fmt: skip
    if config.gpus == 0:
        flags += ["--enforce-eager", "--block-size", "32"]  # the CPU backend takes multiples of 32
    return tuple(flags)


def _environment(config: Config) -> dict[str, str]:
    values = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "VLLM_CACHE_ROOT": f"{SCRATCH}/cache",
        "VLLM_CONFIG_ROOT": f"{SCRATCH}/config",
        "VLLM_RPC_BASE_PATH": SCRATCH,
        "TRITON_CACHE_DIR": f"{SCRATCH}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{SCRATCH}/inductor",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_PLUGINS": "",  # two plugins load LoRA adapters from paths and hubs by themselves otherwise
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
        "VLLM_SERVER_DEV_MODE": "0",
        "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "0",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_ENABLE_RESPONSES_API_STORE": "0",
        "VLLM_TRACE_FUNCTION": "0",
        "VLLM_RAISE_ON_LOGIT_NANS": "1",  # an engine whose numbers are none ends, and the door with it
        "VLLM_LOGGING_LEVEL": "INFO",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(_KEEP_ALIVE),
        "PYTHONHASHSEED": str(secrets.randbelow(2**32)),  # block hashes must not be predictable from outside
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if config.gpus == 0:
        values["VLLM_CPU_KVCACHE_SPACE"] = str(config.engine.kv_cache_gib)
        # Eager, but for a few functions of its sampler: the first answer with logprobs would call a C++ compiler,
        # which an image has no reason to hold.
        values["TORCHDYNAMO_DISABLE"] = "1"
    else:
        # The second generation of the model runner reads stale buffers under confidential computing: wrong tokens,
        # and no error (vllm-project/vllm#57224).
        values["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    return values
