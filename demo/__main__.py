"""`make demo`: the whole chain on one machine, through the code a real guest runs, to a verified answer.

Only the silicon, its vTPM and the machine around systemd are stand-ins; their names say INSECURE-SIMULATED.
"""

import argparse
import os
import shlex
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from demo.asking import ask_openai
from demo.container import require_root
from demo.payload import BUILD
from demo.screen import Screen, fail
from demo.site import MODEL, TOKEN, Site, Workshop, make_workshop, site
from guest.record import card
from strongroom.errors import MachineError, StrongroomError

QUESTION: Final = "Who keeps the key of the vault?"
STEPS: Final = 7


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="The whole chain on this machine.")
    parser.add_argument(
        "--keep", action="store_true", default=bool(os.environ.get("KEEP")), help="leave it up"
    )
    parser.add_argument("--folder", type=Path, default=BUILD / "demo", help="where everything lies")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        require_root()
        return _show(Screen(STEPS), args.folder, keep=args.keep)
    except StrongroomError as error:
        fail(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        fail("interrupted; everything it started is gone")
        return 130


def _show(screen: Screen, folder: Path, *, keep: bool) -> int:
    shutil.rmtree(folder / "site", ignore_errors=True)
    with ExitStack() as stack:
        with screen.step("Lay out the guest, make a tiny model, seal it"):
            workshop = make_workshop(folder)
            _tell_workshop(screen, workshop)
        with screen.step("Start a broker, simulated silicon and a vTPM; boot systemd as the guest's PID 1"):
            made = stack.enter_context(site(workshop, folder / "site"))
        return _with_site(screen, made, keep=keep)


def _with_site(screen: Screen, made: Site, *, keep: bool) -> int:
    with screen.step("The guest boots: measure, attest, obtain keys, mount, certify, serve"):
        record = _follow(screen, made)
        screen.say(card(record))
        if record["state"] != "serving":
            raise MachineError(f"guest: boot {record['state']}: {record.get('error', 'no reason given')}")
    with screen.step("Verify it from outside, before a word is sent"):
        certificate = made.folder / "door.pem"
        _, table, _ = made.strongroom(
            "verify", made.url, "--policy", made.policy, "--save-certificate", certificate
        )
        screen.say(table)
    with screen.step("Ask with the plain openai client, pinned to the certificate just verified"):
        screen.say(f"Q: {QUESTION}")
        screen.say(f"A: {ask_openai(made.url, certificate, TOKEN, MODEL, QUESTION)}")
    with screen.step("Ask with strongroom chat: verify, ask on that connection, check the receipt"):
        _chat(screen, made)
    if keep:
        _wait_for_ctrl_c(screen, made)
    with screen.step("Shut down"):
        made.running.poweroff()
    print(
        f"\nA verified answer came out of a sealed model. {screen.elapsed:.0f} s in all: "
        f"the agent's share of the boot {record['agent_ms']} ms, the engine's {record['engine_ms']} ms."
    )
    return 0


def _tell_workshop(screen: Screen, workshop: Workshop) -> None:
    screen.say(
        f"measurement  {workshop.payload.measure().hex()[:32]}… (golden value, computed from the files)"
    )
    screen.say(
        f"sealed model {workshop.new.tree}, epoch {workshop.new.epoch}, root {workshop.new.root[:16]}…"
    )


def _follow(screen: Screen, made: Site) -> dict[str, Any]:
    """The final boot record; tells each stage as it ends."""
    told = 0
    while True:
        record = made.record()
        stages = record.get("stages", [])
        for stage in stages[told:]:
            screen.say(
                f"{stage['name']:<10} {stage['outcome']:<6} {stage['ms']:>6} ms {stage.get('error', '')}"
            )
            if stage["name"] == "gpu":
                screen.say("serve      … the engine loads (about half a minute on a CPU)")
        told = len(stages)
        if record.get("state") in {"serving", "failed", "stopped"}:
            return record
        if not made.running.alive:
            return made.wait("serving", "failed", timeout=1.0)
        time.sleep(0.05)


def _chat(screen: Screen, made: Site) -> None:
    receipt, request, response = (made.folder / name for name in ("receipt.json", "request", "response"))
    known = ("--policy", made.policy)
    kept = ("--receipt", receipt, "--save-request", request, "--save-response", response)
    asked = ("--token-file", made.token_file, "--max-tokens", "16")
    _, answer, told = made.strongroom("chat", made.url, QUESTION, *known, *asked, *kept)
    screen.say(told)
    screen.say(f"A: {answer.strip()}")
    screen.say("and once more offline, from the files it kept:")
    exact = ("--request", request, "--response", response)
    _, checked, _ = made.strongroom("receipt", "verify", receipt, *known, *exact)
    screen.say(checked)


def _wait_for_ctrl_c(screen: Screen, made: Site) -> None:
    policy, token = shlex.quote(str(made.policy)), shlex.quote(str(made.token_file))
    print("\nIt stays up. From another terminal, as root:")
    screen.say(f"strongroom verify {made.url} --policy {policy}")
    screen.say(f'strongroom chat {made.url} "your question" --policy {policy} --token-file {token}')
    screen.say(
        f"curl --cacert {made.folder / 'door.pem'} --connect-to ::{made.cable.inside}: "
        f"-H 'authorization: Bearer {TOKEN}' https://strongroom.example:8443/v1/models"
    )
    screen.say(f"journal: nsenter -t {made.running.pid()} -a journalctl -f")
    screen.say(f"boot record: {made.folder / 'run' / 'boot.json'}")
    print("(the strongroom command is build/venv/bin/strongroom) Ctrl-C ends it.", flush=True)
    try:
        while made.running.alive:
            time.sleep(1)
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    sys.exit(main())
