"""What was found of a server, for a person (a table and sentences) and for a program (JSON)."""

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from strongroom.appraise.verdict import Result
from strongroom.cli.terminal import one_line, table
from strongroom.errors import FormatError
from strongroom.evidence.eventlog import PCR, EventLog
from strongroom.host.attested import Examination
from strongroom.host.judging import Finding
from strongroom.host.sealedhttp import SealedExamination
from strongroom.measure.tree import words
from strongroom.verify.claims import Claims
from strongroom.verify.roots import SIMULATED_LABEL
from strongroom.wire.canonical import JSON, parse_json

_LAUNCH: Final = re.compile(r"[0-9a-f]{96}")  # a launch measurement, said in words as well
_DIGEST: Final = re.compile(r"[0-9a-f]{64,}")
Examined = Examination | SealedExamination
LOUD: Final = (
    f"{SIMULATED_LABEL}: this machine is simulated silicon. It hides nothing from anyone. For tests only."
)


def report(examined: Examination) -> str:
    """Every check on a line of its own, then what the machine says it runs."""
    loud = [f"!!! {LOUD} !!!", ""] if examined.simulated else []
    return "\n".join([*loud, table(list(_rows(examined))), "", *_facts(examined)])


def summary(examined: Examined) -> str:
    """One line: who, on what, running what."""
    claims = examined.channel.claims
    model = event(claims.events, "model")
    mark = f" {SIMULATED_LABEL}" if examined.simulated else ""
    mark += "" if isinstance(examined, Examination) else " sealed bodies,"
    return one_line(
        f"{examined.address}: {'accepted' if examined.passed else 'REFUSED'},{mark} {claims.tee.upper()} "
        f"{claims.product}, image {words(claims.measurement)}, model {model.get('name', 'unknown')}"
    )


def to_json(examined: Examined) -> dict[str, JSON]:
    """All of it, for scripts; stable keys."""
    claims = examined.channel.claims
    return {
        "server": str(examined.address),
        "accepted": examined.passed,
        "genuine": True,
        "insecure_simulated": examined.simulated,
        "reasons": list(examined.reasons),
        "measurement": claims.measurement.hex(),
        "words": words(claims.measurement),
        "host_data": claims.host_data.hex(),
        "product": claims.product,
        "model": event(claims.events, "model"),
        "pushed": event(claims.events, "pushed"),
        "engine": event(claims.events, "engine"),
        "gpus": claims.gpus,
        "gpu_state_by_agent": claims.gpu_state.to_json() if claims.gpu_state is not None else None,
        **_keys(examined),
        "receipt_key_sha256": None if (key := examined.receipt_key) is None else sha256(key).hexdigest(),
        "key_exchange": examined.group,
        "not_checked": list(claims.not_checked),
        "verdicts": {finding.purpose.value: finding.verdict.to_json() for finding in examined.findings},
    }


def _keys(examined: Examined) -> dict[str, JSON]:
    if isinstance(examined, Examination):
        return {"certificate_sha256": sha256(examined.certificate).hexdigest()}
    return {"sealed_key_sha256": examined.key.id.hex()}


def said_of_gpus(claims: Claims) -> str:
    """What the measured agent says of the GPUs, in words; empty when it says nothing."""
    if (state := claims.gpu_state) is None:
        return ""
    return (
        f"cc {state.cc_mode}, devtools {state.devtools_name}, environment {state.environment_name}, "
        f"driver {state.driver}, ready flag {state.ready_name} at that time: the agent's word, no device's"
    )


def event(events: EventLog | None, name: str) -> dict[str, JSON]:
    """The one event of that name as an object; empty when the log has none."""
    payload = events.find(name) if events is not None else None
    if payload is None:
        return {}
    value = parse_json(payload, f"event {name}")
    if not isinstance(value, dict):
        raise FormatError(f"event {name}: got {type(value).__name__}, want an object")
    return value


def _rows(examined: Examination) -> Iterator[tuple[str, str, str, str]]:
    yield "check", "found", "wanted", ""
    yield "this connection", "evidence made over it", "evidence over its own exporter", "ok"
    for name, value, wanted in (
        ("certificate", examined.certificate, "evidence for its key"),
        ("receipt key", examined.receipt_key, "evidence for it"),
    ):
        if value is not None:
            yield name, f"sha256 {_short(sha256(value).hexdigest())}", wanted, "ok"
    shown = set[Result]()
    for finding in examined.findings:
        for result in finding.verdict.results:
            # The three pieces of evidence speak of one machine: say a thing once, and a difference always.
            if result not in shown:
                shown.add(result)
                yield _row(result, "" if finding is examined.channel else f" ({_name(finding)})")


def _row(result: Result, whose: str) -> tuple[str, str, str, str]:
    spoken = f"{words(bytes.fromhex(result.found))} " if _LAUNCH.fullmatch(result.found) else ""
    found = spoken + _short(result.found)
    return result.check + whose, found, _short(result.wanted), "ok" if result.passed else "REFUSED"


def _short(text: str) -> str:
    return _DIGEST.sub(lambda digest: f"{digest[0][:12]}…", text)


def _name(finding: Finding) -> str:
    return "certificate" if finding.purpose.value == "ra-tls" else finding.purpose.value.replace("-", " ")


def _facts(examined: Examination) -> Iterator[str]:
    claims = examined.channel.claims
    yield one_line(f"image   {words(claims.measurement)}  ({claims.measurement.hex()})")
    if model := event(claims.events, "model"):
        yield one_line(f"model   {model.get('name')}, epoch {model.get('epoch')}, root {model.get('root')}")
    if pushed := event(claims.events, "pushed"):
        yield one_line(
            f"pushed  manifest {pushed.get('manifest_sha256')}, by key {pushed.get('provider_sha256')}"
        )
    if engine := event(claims.events, "engine"):
        yield one_line(f"engine  {engine.get('name')} {engine.get('version')}  {_flags(engine)}")
    if claims.gpus:
        yield one_line(f"gpus    {claims.gpus}  {said_of_gpus(claims)}")
    yield f"chip    {_chip(claims)}, {claims.leaf.upper()}, report version {claims.report_version}"
    if (tpm := claims.tpm) is not None:
        yield f"tpm     quote by key {tpm.key_sha256.hex()[:8]}, {len(tpm.pcrs)} pcrs, pcr {PCR} follows the event log"
    yield f"tls     1.3, key exchange {examined.group or 'unknown'}"
    for gap in claims.not_checked:
        yield one_line(f"not checked: {gap}")


def _flags(engine: dict[str, JSON]) -> str:
    flags = engine.get("flags")
    return " ".join(map(str, flags)) if isinstance(flags, list) else ""


def _chip(claims: Claims) -> str:
    # The whole id would follow a machine around; eight digits tell two chips apart.
    return (
        f"{claims.product} {claims.chip_id.hex()[:8]}" if any(claims.chip_id) else f"{claims.product}, masked"
    )
