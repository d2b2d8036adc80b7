"""Real vLLM on a model of its own: how long it says loading took, from a plain folder and from the sealed mount.

The sealed mount is started together with the engine, as at boot: resident, it decrypts while the engine imports.
"""

import re
from pathlib import Path
from typing import Final

from bench.fs import model
from bench.fs.loader import ENGINE
from bench.fs.mounts import Mounted, forget
from bench.fs.names import COLD, NEWEST, PLAIN, STREAM
from bench.fs.options import Options
from bench.fs.report import Part, Target
from bench.fs.stage import Place, staged
from bench.fs.trial import Round, in_turns
from strongroom.errors import MachineError
from strongroom.host.run import run

SUBJECTS: Final = (PLAIN, NEWEST, STREAM, COLD)
TARGETS: Final = (Target("weights", COLD, PLAIN, 1.05, "time"),)
_ROUNDS: Final = 3
_TOOK: Final = re.compile(r"Loading weights took ([0-9.]+) seconds")
_START: Final = 600.0  # seconds
_ENVIRONMENT: Final = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


def measure(place: Place, options: Options) -> Part:
    if not ENGINE.exists():
        raise MachineError(f"{ENGINE}: no engine, want ./setup.sh engine")
    plain = place.work / "plain"
    plain.mkdir()
    size = model.llama(plain, options.size)
    home = place.work / "home"
    home.mkdir()

    def work(mounted: Mounted) -> Round:
        if mounted.since is None:
            forget(mounted.path)
        environment = {**_ENVIRONMENT, "HOME": str(home), "TMPDIR": str(home)}
        argv = [ENGINE, Path(__file__).with_name("engine_start.py"), mounted.path]
        done = run(argv, env=environment, cwd=home, timeout=_START)
        took = _TOOK.search((done.stdout + done.stderr).decode(errors="replace"))
        if took is None:
            raise MachineError("vllm: it does not say how long loading took")
        return Round(size, max(float(took[1]), 0.005), 0.0)  # it says hundredths

    part = Part(
        "vllm", f"vLLM's own log line for a Llama of {size / 1e9:.2f} GB, in the same run", targets=TARGETS
    )
    with staged(place, plain, options.chosen(SUBJECTS)) as stage:
        part.measured.append(in_turns("weights", stage.subjects, work, rounds=min(options.rounds, _ROUNDS)))
        part.tell(stage)
    for name, figure in part.measured[0].figures.items():
        seconds = ", ".join(f"{done.seconds:.2f}" for done in figure.rounds)
        part.notes.append(f"{name}: {seconds} s")
    return part
