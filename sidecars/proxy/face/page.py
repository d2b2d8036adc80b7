"""The page for people: one HTML document out of Facts, with nothing outside it, no script, and no claim it cannot make.

A browser checks none of this. So the page says what the machine says, and which commands check it from outside. Its
policy lets the browser load and run nothing at all but this one style sheet, by its hash.
"""

from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from typing import Final

from sidecars.proxy.face.boot import Boot, Stage
from sidecars.proxy.face.facts import Facts, GPUs
from sidecars.proxy.face.sheet import SHEET

TYPE: Final = "text/html; charset=utf-8"
_STYLE: Final = b64encode(sha256(SHEET.encode()).digest()).decode()
HEADERS: Final = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_KINDS: Final = {
    "snp": "AMD SEV-SNP",
    "tdx": "Intel TDX",
    "azure-snp": "AMD SEV-SNP behind Azure's paravisor",
    "azure-tdx": "Intel TDX behind Azure's paravisor",
}
_STAGES: Final = {
    "configure": "read its configuration, which is measured",
    "measure": "held what will run against what was launched",
    "keys": "proved itself to the key broker and got the model's key",
    "sockets": "gave the programs inside their keys",
    "receive": "took the model in, where one is pushed",
    "mount": "mounted the encrypted model",
    "certify": "made the door's keys and evidence for them",
    "tunnel": "opened attested paths, where it has peers",
    "gpu": "verified every GPU there is and let work in",
    "serve": "started the engine and saw it answer",
}


def page(facts: Facts) -> str:
    """The whole document."""
    title = escape(facts.title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>{SHEET}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
<p class="state {_state_class(facts.state)}" id="state">{escape(facts.state)}</p>
</header>
{_warning(facts)}<p class="lead">A language model in a confidential virtual machine. What follows is what this
machine says of itself: your browser cannot check it, <a href="#check">the commands below</a> can.</p>
{_machine(facts)}
{_serving(facts)}
{_boot(facts.boot)}
{_receipts(facts)}
{_check(facts)}
<footer>As of {_moment(facts.at)}. The same for programs:
<a href="/.well-known/strongroom">/.well-known/strongroom</a></footer>
</main>
</body>
</html>
"""


def _state_class(state: str) -> str:
    return "good" if state == "open" else "waiting"


def _warning(facts: Facts) -> str:
    if not facts.launched.simulated:
        return ""
    return (
        '<p class="warning" id="simulated"><strong>Insecure: this is simulated silicon.</strong> '
        "It hides nothing from anyone, and is for tests only.</p>\n"
    )


def _machine(facts: Facts) -> str:
    launched = facts.launched
    rows = [
        ("hardware", escape(_KINDS.get(launched.tee, launched.tee))),
        ("measurement", _hex(launched.measurement.hex())),
        ("userdata", _hex(facts.userdata_sha256) if facts.userdata_sha256 else "not known"),
        ("GPUs", _gpus(facts)),
    ]
    return f"""<section aria-labelledby="machine">
<h2 id="machine">The machine</h2>
<p class="words" id="words">{escape(facts.words)}</p>
<p class="note">The first eight bytes of the measurement as words, to compare two screens by.</p>
{_table(rows)}
</section>"""


def _gpus(facts: Facts) -> str:
    gpus, boot = facts.gpus, facts.boot
    if not gpus.count:
        return "none, and none on the bus"
    let_in = boot is not None and boot.gpus == gpus.count
    verified = "verified, work let in" if let_in else "not yet let in"
    return f"{gpus.count}, {escape(verified)}{_modes(gpus)}"


def _modes(gpus: GPUs) -> str:
    if (nvml := gpus.nvml) is None:
        return ""
    said = (
        f"confidential computing {nvml.cc_mode}, developer tools {nvml.devtools_name}, "
        f"{nvml.environment_name}, driver {nvml.driver}"
    )
    return f'<br><span class="note">{escape(said)}</span>'


def _serving(facts: Facts) -> str:
    model, engine = facts.model, facts.engine
    length = "" if facts.max_model_len is None else f", {facts.max_model_len:,} tokens"
    rows = [
        ("model", f"<strong>{escape(model.name)}</strong>, epoch {model.epoch}{length}"),
        ("its root", _hex(model.root.hex())),
        ("engine", f"{escape(engine.name)} {escape(engine.version)}"),
        ("its flags", _hex(engine.flags_sha256.hex())),
        ("TLS key", _hex(sha256(facts.tls_spki).hexdigest())),
    ]
    return f"""<section aria-labelledby="serving">
<h2 id="serving">What it serves</h2>
{_table(rows)}
</section>"""


def _boot(boot: Boot | None) -> str:
    if boot is None:
        return """<section aria-labelledby="boot">
<h2 id="boot">The boot</h2>
<p>Not known at this moment: the machine's agent does not answer.</p>
</section>"""
    longest = max((stage.ms for stage in boot.stages), default=0) or 1
    rows = "\n".join(_stage(stage, longest) for stage in boot.stages)
    began = (
        "" if boot.started_at is None else f", begun {_moment(datetime.fromtimestamp(boot.started_at, UTC))}"
    )
    return f"""<section aria-labelledby="boot">
<h2 id="boot">The boot</h2>
<p class="note">{escape(boot.state.capitalize())}{began}{_times(boot)}.</p>
<table class="stages">
<thead><tr><th scope="col">stage</th><th scope="col">what it did</th><th scope="col">outcome</th>
<th scope="col" class="number">time</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</section>"""


def _times(boot: Boot) -> str:
    if boot.agent_ms is None or boot.engine_ms is None:
        return ""
    return f". {_seconds(boot.agent_ms)} of its own and {_seconds(boot.engine_ms)} of the engine's"


def _stage(stage: Stage, longest: int) -> str:
    good = stage.outcome == "ok"
    share = max(1, round(100 * stage.ms / longest))
    line = f'<rect width="{share}%" height="4" rx="2"/>'
    bar = f'<svg class="bar" aria-hidden="true" height="4" width="100%">{line}</svg>'
    return (
        f'<tr><th scope="row">{escape(stage.name)}</th><td>{escape(_STAGES.get(stage.name, ""))}{bar}</td>'
        f'<td class="{"good" if good else "bad"}">{escape(stage.outcome)}</td>'
        f'<td class="number">{_seconds(stage.ms)}</td></tr>'
    )


def _receipts(facts: Facts) -> str:
    head = facts.log.head
    count = f"{head.size:,} {'receipt' if head.size == 1 else 'receipts'}"
    rows = [
        ("signed so far", f'<strong id="receipts">{count}</strong>'),
        ("root of the log", _hex(head.root.hex())),
        ("receipt key", _hex(sha256(facts.receipt_key).hexdigest())),
        *((f"as {name}", _hex(address)) for name, address in facts.signing.items()),
    ]
    return f"""<section aria-labelledby="log">
<h2 id="log">Receipts</h2>
<p class="note">Each answer gets one: signed, over the exact bytes asked and answered, in a log that only grows.</p>
{_table(rows)}
</section>"""


def _check(facts: Facts) -> str:
    url = f"https://{facts.host}"
    commands = f"""# genuine, and what you want? Nothing but a random number is sent
strongroom verify {url} --policy policy.yaml

# ask, once that holds, and keep the receipt
strongroom chat {url} "Who holds the key?" --policy policy.yaml --receipt answer.receipt

# years later, without any network
strongroom receipt verify answer.receipt --policy policy.yaml"""
    return f"""<section aria-labelledby="check">
<h2 id="check">Check it yourself</h2>
<p>Take the measurement for your policy from the image you trust, or from whoever builds it, and not from this page.</p>
<pre>{escape(commands)}</pre>
</section>"""


def _table(rows: Iterable[tuple[str, str]]) -> str:
    """Of a label that is text and a value that is HTML."""
    lines = "\n".join(f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>' for name, value in rows)
    return f"<table>\n<tbody>\n{lines}\n</tbody>\n</table>"


def _hex(value: str) -> str:
    return f"<code>{escape(value)}</code>"


def _seconds(ms: int) -> str:
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def _moment(moment: datetime) -> str:
    stamp = moment.astimezone(UTC)
    return f'<time datetime="{stamp:%Y-%m-%dT%H:%M:%SZ}">{stamp:%Y-%m-%d %H:%M:%S} UTC</time>'
