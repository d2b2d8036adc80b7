"""What conversations ask of the door: a turn, a place for a manifest, bytes taken, a model accepted.

All work on the disk is done by one thread, one piece after the other. So a connection that is cut never leaves a piece
half done, and whoever comes next finds what all before have brought.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from sidecars.receive.arrival import Arrival
from sidecars.receive.config import ReceiveConfig
from sidecars.receive.session import Claim, Session, State
from strongroom.errors import FormatError, MachineError, PolicyError, StrongroomError, VerifyError
from strongroom.host.door.peer import Peer
from strongroom.host.door.refusal import Refusal
from strongroom.host.sealed.plain import Entropy
from strongroom.host.secret import Secret
from strongroom.push.answers import MAX_RANGE, Accepted, Missing
from strongroom.push.content import Span
from strongroom.push.manifest import PushManifest
from strongroom.push.offer import EXPORTER_LABEL, Offer, provider_name

_log: Final = logging.getLogger("strongroom.receive")
P = ParamSpec("P")
T = TypeVar("T")


class Intake:
    def __init__(
        self,
        config: ReceiveConfig,
        key: Secret,
        *,
        entropy: Entropy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session: Final = Session[Peer]()
        self.accepted: Final = asyncio.Event()
        self.told: Final = asyncio.Event()  # whoever pushed it has heard so, or is gone
        self._config, self._key = config, key
        self._entropy, self._clock = entropy, clock
        self._thread = ThreadPoolExecutor(1, "strongroom-arrival")
        self._arrival: tuple[Claim, Arrival] | None = None  # touched by that thread alone
        self.progress = (0, 0)  # bytes that arrived, of how many

    @property
    def sentence(self) -> str:
        """How it stands, for a person."""
        if self.session.state is State.WAITING:
            return "waiting for a provider"
        if self.session.state is State.SEALING:
            return f"sealing {self._config.name}"
        return f"receiving {self._config.name}: {self.progress[0]} of {self.progress[1]} bytes"

    def offer(self, peer: Peer, offer: Offer) -> Claim:
        """Check a provider's word and give its connection the turn. Refusal when it may not have it."""
        exporter = peer.tls.exporter(EXPORTER_LABEL, 32, offer.manifest_sha256)
        try:
            offer.verify(exporter=exporter, providers=self._config.providers)
        except (FormatError, PolicyError, VerifyError) as error:
            _log.warning("%s", error)
            raise Refusal(403, "offer", str(error)) from None
        claim = Claim(offer.provider, offer.manifest_sha256)
        displaced = self.session.claim(peer, claim, now=self._clock())
        if displaced is not None:
            displaced.cut()
        _log.info("offer of %s by %s", claim.manifest_sha256.hex(), provider_name(claim.provider))
        return claim

    async def describe(self, peer: Peer, packed: bytes) -> Missing | Accepted:
        """What is missing of the manifest that was offered; or that it has been accepted already."""
        claim = self.session.require(peer, now=self._clock())
        if self.session.accepted is not None:
            return self.session.accepted
        try:
            manifest = self._judged(packed, claim)
        except (FormatError, PolicyError, VerifyError) as error:
            raise self._refused(claim, error) from None
        return Missing(await self._do(claim, self._begin, claim, manifest))

    def _judged(self, packed: bytes, claim: Claim) -> PushManifest:
        manifest = PushManifest.parse(packed)
        if manifest.digest != claim.manifest_sha256:
            raise VerifyError(
                f"push manifest: sha256 is {manifest.digest.hex()}, want the offered "
                f"{claim.manifest_sha256.hex()}"
            )
        if manifest.name != self._config.name:
            raise PolicyError(f"push manifest: name is {manifest.name!r}, want {self._config.name!r}")
        size = sum(file.size for file in manifest.files)
        if size > self._config.max_bytes:
            raise PolicyError(
                f"push manifest: files have {size} bytes, want at most {self._config.max_bytes}"
            )
        return manifest

    async def check_range(self, peer: Peer, start: int, length: int) -> None:
        """Refusal unless these are the bytes that are missing next."""
        claim = self.session.require(peer, now=self._clock())
        missing = await self._do(claim, self._missing, claim)
        window = missing[0] if missing else Span(0, 1)
        if not missing or start != window.start:
            wanted = f"want the one from {window.start}" if missing else "want nothing more"
            raise Refusal(409, "range", f"got the range from {start}, {wanted}")
        if not 0 < length <= min(MAX_RANGE, len(window)):
            most = min(MAX_RANGE, len(window))
            raise Refusal(409, "range", f"got a range of {length} bytes, want 1..{most} from here")

    async def take(self, peer: Peer, data: bytes) -> int:
        """Seal the next bytes; the result is the first that is still missing."""
        claim = self.session.require(peer, now=self._clock())
        return await self._do(claim, self._take, claim, data)

    async def finish(self, peer: Peer) -> Accepted:
        """Commit the tree. Refusal while bytes are missing, and when it cannot be committed."""
        if self.session.accepted is not None:
            self.session.require(peer, now=self._clock())
            return self.session.accepted
        claim = self.session.require(peer, now=self._clock())
        if missing := await self._do(claim, self._missing, claim):
            raise Refusal(409, "missing", f"{sum(map(len, missing))} bytes are missing")
        self.session.seal(peer, now=self._clock())
        # The commit is not given up with the connection that asked for it.
        sealing = asyncio.ensure_future(self._seal(claim))
        sealing.add_done_callback(_seen)
        return await asyncio.shield(sealing)

    async def _seal(self, claim: Claim) -> Accepted:
        manifest, root = await self._do(claim, self._commit, claim)
        accepted = Accepted(
            name=manifest.name,
            epoch=manifest.epoch,
            root=root,
            manifest_sha256=claim.manifest_sha256,
            provider_sha256=bytes.fromhex(provider_name(claim.provider)),
        )
        self.session.accept(accepted)
        self.accepted.set()
        _log.info("accepted %s epoch %d, root %s", accepted.name, accepted.epoch, root.hex())
        return accepted

    def left(self, peer: Peer) -> None:
        """The connection has ended."""
        self.session.left(peer, now=self._clock())

    async def close(self) -> None:
        """Let go of the disk; what arrived stays there for the next process."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)
        self._thread.shutdown()

    async def _do(self, claim: Claim, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have `work` done by the thread. What it refuses ends the claim, and nothing of it stays on disk."""
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._thread, lambda: work(*args, **kwargs))
        job.add_done_callback(_seen)
        try:
            return await asyncio.shield(job)
        except (StrongroomError, OSError) as error:
            try:
                await asyncio.shield(loop.run_in_executor(self._thread, self._drop, claim))
            except (StrongroomError, OSError) as leftover:
                _log.error("what was refused could not be removed: %s", leftover)
            raise self._refused(claim, error) from None

    def _refused(self, claim: Claim, error: StrongroomError | OSError) -> Refusal:
        self.session.refuse(claim)
        if isinstance(error, Refusal):
            return error
        _log.warning("push refused: %s", type(error).__name__)  # its words may name files of the model
        if isinstance(error, OSError | MachineError):
            text = str(error) if isinstance(error, MachineError) else (error.strerror or "failed").lower()
            return Refusal(507, "machine", text)
        return Refusal(422, "refused", str(error))

    # In the thread

    def _begin(self, claim: Claim, manifest: PushManifest) -> tuple[Span, ...]:
        if self._arrival is not None and self._arrival[0] != claim:
            self._drop(self._arrival[0])
        if self._arrival is None:
            arrival = Arrival.begin(
                self._config.dest, manifest, model_key=self._key.view(), entropy=self._entropy
            )
            self._arrival = claim, arrival
        return self._missing(claim)

    def _missing(self, claim: Claim) -> tuple[Span, ...]:
        arrival = self._of(claim)
        self.progress = arrival.arrived, arrival.size
        return arrival.missing

    def _take(self, claim: Claim, data: bytes) -> int:
        arrival = self._of(claim)
        arrival.take(memoryview(data))
        self.progress = arrival.arrived, arrival.size
        return arrival.next

    def _commit(self, claim: Claim) -> tuple[PushManifest, bytes]:
        arrival = self._of(claim)
        return arrival.manifest, arrival.finish()

    def _of(self, claim: Claim) -> Arrival:
        if self._arrival is None or self._arrival[0] != claim:
            raise Refusal(409, "out_of_order", "nothing is being received, want a manifest first")
        return self._arrival[1]

    def _drop(self, claim: Claim) -> None:
        if self._arrival is not None and self._arrival[0] == claim:
            arrival, self._arrival = self._arrival[1], None
            arrival.drop()

    def _let_go(self) -> None:
        if self._arrival is not None:
            self._arrival[1].close()
            self._arrival = None


def _seen(job: "asyncio.Future[T]") -> None:
    """An error of work whose connection is gone is not the loop's to complain of: it is raised again by the next."""
    if not job.cancelled():
        job.exception()
