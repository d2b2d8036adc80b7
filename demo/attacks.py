"""`make attacks`: eight things a hostile host, store or network can try, each on the real chain, each refused.

Every attack says where it was refused, with the sentence the victim gave, and which guarantee of
docs/threat-model.md it meets. Six boot a guest of their own; the last two attack one that is serving.
"""

import argparse
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.container import require_root
from demo.payload import BUILD
from demo.relaying import replay_to_broker, serve_stolen_evidence
from demo.screen import fail
from demo.site import Scenario, Site, Workshop, make_workshop, site
from strongroom.errors import MachineError, StrongroomError

_DEADLINE: Final = 180.0  # seconds for a guest to be refused, or to serve
_OPENING: Final = "tag does not verify"
_FLAG: Final = "[--trust-remote-code]"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Where an attack ended, in whose words."""

    where: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Attack:
    title: str
    guarantee: str
    where: str  # the place that must refuse it
    wanted: str  # words of the sentence that must be given
    scenario: Callable[[Workshop, Path], Scenario]


def flipped_byte(workshop: Workshop, folder: Path) -> Scenario:
    tree = _copied(workshop.new.tree, folder)
    victim = _objects(tree)[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    return Scenario(sealed=tree)


def swapped_files(workshop: Workshop, folder: Path) -> Scenario:
    """Two objects of one length, so that only what is inside can tell."""
    tree = _copied(workshop.new.tree, folder)
    by_size: dict[int, Path] = {}
    for path in _objects(tree):
        twin = by_size.setdefault(path.stat().st_size, path)
        if twin is not path:
            spare = tree / "spare"
            twin.rename(spare)
            path.rename(twin)
            spare.rename(path)
            return Scenario(sealed=tree)
    raise MachineError("attack: the demo model has no two objects of one length")


def older_epoch(workshop: Workshop, _: Path) -> Scenario:
    return Scenario(sealed=workshop.old.tree)


def changed_userdata(_: Workshop, __: Path) -> Scenario:
    """Launched with one userdata, handed another that would be valid by itself."""
    return Scenario(handed_over=lambda launched: launched.replace(b"max_num_seqs: 4", b"max_num_seqs: 8"))


def debug_policy(_: Workshop, __: Path) -> Scenario:
    return Scenario(silicon=("--debug-policy",))


def injected_flag(_: Workshop, __: Path) -> Scenario:
    """Launched with the injection, so that nothing but the bounds stands in its way."""
    return Scenario(
        edit=lambda good: good.replace(b"kv_cache_gib: 1", b"kv_cache_gib: 1, extra_args: " + _FLAG.encode())
    )


BOOTING: Final = (
    Attack("one byte of the sealed model flipped", "G4", "serve", _OPENING, flipped_byte),
    Attack("two model files swapped", "G4", "serve", _OPENING, swapped_files),
    Attack("manifest of an older epoch put back", "G5", "mount", "epoch is 1, want 2", older_epoch),
    Attack("userdata changed after launch", "G2", "measure", "host_data", changed_userdata),
    Attack("guest launched with the debug bit", "G6", "keys", "debug", debug_policy),
    Attack("engine flag injected by userdata", "G3", "configure", "extra_args: unknown key", injected_flag),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    title: str
    guarantee: str
    refusal: Refusal
    as_wanted: bool


def attempts(workshop: Workshop, folder: Path) -> Iterator[Outcome]:
    """Every attack in turn."""
    for attack in BOOTING:
        yield attempt(attack, workshop, folder)
    yield from against_a_serving_guest(workshop, folder)


def attempt(attack: Attack, workshop: Workshop, folder: Path) -> Outcome:
    """Boot a guest under one attack."""
    with site(workshop, folder / "site", attack.scenario(workshop, folder)) as made:
        record = made.wait("serving", "failed", timeout=_DEADLINE)
    failed = [stage["name"] for stage in record["stages"] if stage["outcome"] != "ok"]
    refusal = Refusal(failed[0] if failed else "nowhere", str(record.get("error", "it served")))
    return _judged(attack.title, attack.guarantee, refusal, attack.where, attack.wanted)


def against_a_serving_guest(workshop: Workshop, folder: Path) -> Iterator[Outcome]:
    with site(workshop, folder / "site") as made:
        if made.wait("serving", "failed", timeout=_DEADLINE)["state"] != "serving":
            raise MachineError(f"attack: the honest guest did not serve: {made.record().get('error')}")
        sentence = replay_to_broker(made)
        yield _judged(
            "evidence of another session replayed", "G7", Refusal("broker", sentence), "broker", "nonce"
        )
        refusal = Refusal("client", relayed_certificate(made))
        yield _judged(
            "certificate relayed to another key", "G8", refusal, "client", "another key|report_data"
        )


def relayed_certificate(made: Site) -> str:
    """A machine in the middle serves the door's genuine evidence under its own key; the client's sentence."""
    with serve_stolen_evidence(made) as url:
        status, _, told = made.strongroom("verify", url, "--policy", made.policy, check=False)
    return told.strip().splitlines()[-1].removeprefix("strongroom: ") if status else "it was accepted"


def _judged(title: str, guarantee: str, refusal: Refusal, where: str, wanted: str) -> Outcome:
    found = refusal.where == where and re.search(wanted, refusal.sentence) is not None
    return Outcome(title, guarantee, refusal, found)


def _copied(tree: Path, folder: Path) -> Path:
    target = folder / "attacked"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(tree, target)
    return target


def _objects(tree: Path) -> list[Path]:
    return sorted((tree / "objects").iterdir())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make attacks", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--folder", type=Path, default=BUILD / "attacks", help="where everything lies")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failures = 0
    try:
        require_root()
        workshop = make_workshop(args.folder)
        for number, outcome in enumerate(attempts(workshop, args.folder), start=1):
            failures += not outcome.as_wanted
            print(f"{number}. {outcome.title}", flush=True)
            print(
                f"   {'refused' if outcome.as_wanted else 'NOT REFUSED AS WANTED'} at {outcome.refusal.where}, "
                f"guarantee {outcome.guarantee}"
            )
            print(f'   "{outcome.refusal.sentence}"\n', flush=True)
    except StrongroomError as error:
        fail(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        fail("interrupted; everything it started is gone")
        return 130
    print(f"{number} attacks, {number - failures} refused where and as they must be")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
