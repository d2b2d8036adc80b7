"""A volume that never changes, mounted and served: everything a still volume needs, set up and taken down in order."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from sidecars.fs import device as fuse
from sidecars.fs.config import VolumeConfig
from sidecars.fs.mounting import clear, find, leave, mount, raise_read_ahead
from sidecars.fs.opening import Opened
from sidecars.fs.protocol.frames import WANTED
from sidecars.fs.resident import memory as pages
from sidecars.fs.resident.crew import Fillers
from sidecars.fs.resident.ledger import Ledger
from sidecars.fs.resident.plan import candidates, make_plan
from sidecars.fs.resident.residence import Residence
from sidecars.fs.still.operations import Operations
from sidecars.fs.still.tree import Tree
from sidecars.fs.workers import kept
from sidecars.fs.workers.kept import Held, Left
from sidecars.fs.workers.loop import Loop
from sidecars.fs.workers.master import Master
from sidecars.fs.workers.process import fork
from strongroom.errors import MachineError
from strongroom.host.notify import has_manager

_FAREWELL: Final = 0.2  # seconds for workers to see that the mount is gone
_FIRST_ANSWER: Final = 30.0  # seconds
_RESERVE: Final = 256 << 20  # bytes that stay available to others, or
_RESERVE_SHARE: Final = 32  # one part in so many of all memory, whichever is more


@dataclass(slots=True)
class Served:
    """A mount that is answered."""

    title: str
    master: Master
    residence: Residence | None
    fillers: Fillers | None
    remark: str  # why nothing, or not everything, is in memory

    @property
    def alive(self) -> bool:
        return self.master.alive

    @property
    def longest_wait(self) -> float:
        return self.master.longest_wait

    @property
    def sentence(self) -> str:
        """How it is, while nothing has failed."""
        parts = [f"serving {self.title}"]
        if self.residence is not None:
            parts.append(self.residence.progress(self.fillers.in_hand if self.fillers else 0))
        if self.remark:
            parts.append(self.remark)
        if failed := self.master.store_failures:
            parts.append(f"the store failed {failed} time{'s' * (failed > 1)}")
        return "; ".join(parts)

    def look(self) -> None:
        """Once a second or so."""
        self.master.look()
        if self.residence is not None:
            self.residence.relieve()

    def give_back(self) -> None:
        """The memory of every file that nobody has open."""
        if self.residence is not None:
            self.residence.give_back()


@contextmanager
def serve(
    config: VolumeConfig,
    opened: Opened,
    store: frozenset[int],
    left: Left,
    loop: Loop,
    report: Callable[[str], None],
) -> Iterator[Served]:
    """Mount, or go on with the mount that was left, and answer it; unmount it at the end.

    `store` are the descriptors that readers of the volume need. Raises MachineError.
    """
    source = opened.source
    tree = Tree.build(source.items, unit=source.unit, uid=config.uid)
    identity = _identity(config, tree)
    with ExitStack() as stack:
        held = left.adopt(mount=config.mount, identity=identity)
        adopted = held is not None
        if held is None:
            held = _mount(config)
        stack.callback(held.close)
        stack.callback(kept.forget)
        stack.callback(leave, config.mount, held.mounted)
        residence, remark = _residence(config, tree, held, report, adopted=adopted)
        _keep(held, config, identity, adopted=adopted)
        operations = Operations(tree, residence.nodes if residence else ())
        master = Master(held, operations, source, loop=loop, store=store, report=report, desk=residence)
        stack.callback(master.end, _FAREWELL)
        stack.callback(leave, config.mount, held.mounted)  # so that they see it
        master.start(adopted=adopted)
        fillers = None
        if residence is not None and held.memory is not None:
            fillers = Fillers(
                config.workers,
                held.memory,
                source,
                loop=loop,
                store=store,
                take=residence.next_part,
                bring=residence.filled,
            )
            stack.callback(fillers.end)
            fillers.start()
        _confirm(config.mount, loop, fresh=not adopted)
        yield Served(f"{opened.title}, {tree.count - 1} entries", master, residence, fillers, remark)


def _identity(config: VolumeConfig, tree: Tree) -> str:
    """What a predecessor must have served for us to go on with it."""
    what = (config.source, config.root, config.epoch, config.format, tree.digest)
    return sha256(repr(what).encode()).hexdigest()


def _mount(config: VolumeConfig) -> Held:
    clear(config.mount)
    device = fuse.open_device()
    try:
        mount(config.mount, device)
        if (mounted := find(config.mount)) is None or not mounted.ours:
            raise MachineError(f"mount {config.mount}: not there after it was mounted")
        return Held(device, fuse.greet(device, WANTED), mounted)
    except BaseException:
        os.close(device)  # which ends the mount, if there is one
        clear(config.mount)
        raise


def _keep(held: Held, config: VolumeConfig, identity: str, *, adopted: bool) -> None:
    """As many clones as there are workers, and a copy of everything with the service manager, where there is one."""
    taken = True
    while len(held.clones) < config.workers:
        taken = held.add_clone(kept=adopted) and taken
    if not adopted and held.terms.resend:
        taken = held.keep(mount=config.mount, identity=identity)
    if not taken:  # half of it would be taken for all of it
        kept.forget()
        if has_manager():
            _say("the service manager did not take our descriptors: the mount ends with us if we are killed")


def _residence(
    config: VolumeConfig, tree: Tree, held: Held, report: Callable[[str], None], *, adopted: bool
) -> tuple[Residence | None, str]:
    """Who looks after files in memory, if any are to be; and why there are not more. The memory is `held` then.

    A mount that was streamed stays so: somebody may have its files open that way.
    """
    files, remark = candidates(tree.files()), ""
    if not adopted:
        plan = make_plan(
            files,
            mode=config.mode,
            passthrough=held.terms.passthrough,
            available=pages.available(),
            budget=config.memory,
        )
        files, remark = plan.files, plan.shortage
        if files:
            try:
                held.memory = pages.make_memory(plan.limit)
            except MachineError as error:
                remark = str(error)
    if held.memory is None:
        return None, remark
    ledger = Ledger(held.memory, None if adopted else len(files))
    residence = Residence(
        held.device,
        held.memory,
        ledger,
        files[: ledger.count],
        processes=config.workers,
        reserve=max(_RESERVE, pages.total() // _RESERVE_SHARE),
        report=report,
    )
    if adopted:
        residence.take_over()
    return residence, remark


def _confirm(point: Path, loop: Loop, *, fresh: bool) -> None:
    """Ask through the kernel, as the engine will: in a child, for we must be free to start a worker that has died."""
    process = fork(lambda: _ask(point), keep=())
    ended = list[int | None]()

    def end() -> None:
        loop.forget(process.pidfd)
        ended.append(process.reap())

    loop.watch(process.pidfd, end)
    deadline = time.monotonic() + _FIRST_ANSWER
    while not ended:
        if time.monotonic() > deadline:
            process.kill()
            raise MachineError(f"mount {point}: no answer within {_FIRST_ANSWER:g} s")
        loop.step(0.1)
    if ended != [0]:
        raise MachineError(f"mount {point}: it does not answer as a file system")
    if fresh and not raise_read_ahead(point):
        _say(f"mount {point}: read-ahead stays at the kernel's default, reads will be slow")


def _ask(point: Path) -> None:
    os.statvfs(point)


def _say(sentence: str) -> None:
    print(f"strongroom-fs: {sentence}", file=sys.stderr, flush=True)
