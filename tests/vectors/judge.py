"""What was observed of a vector, held against everything its index says it expects.

A vector passes when every single value under `expect` was observed by Strongroom and is equal, and when it was
refused exactly where it should be. A value nobody observed is a failure: nothing is skipped.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from strongroom.errors import StrongroomError

T = TypeVar("T")

# Words for people, and what other tools said: facts about those tools, not about the evidence.
_PROSE: Final = re.compile(r"note|summary|verified_by|own_result|recomputed_equal|(?:[a-z]+_)+\d+(?:_\d+)+")

_VERDICT: Final = re.compile(r"(valid|ok|bound|pinned|match|matches|equal|equals_\w+)$")

# A stated reason speaks of one or more of these; so must our own sentence. Alternatives ("a / b", "a or b")
# are enough each. Whole reasons come first, then words.
_SUBJECTS: Final[Mapping[str, str]] = {
    "tcb info signature": r"tcb info.*signature|signature.*tcb info",
    "qe report signature": r"(qe|quoting enclave).*signature|signature.*(qe|quoting enclave)",
    "quote signature": r"quote: .*signature|signature.*(attestation key|quote)",
    "qe identity": r"qe identity|identity of the (qe|quoting)",
    "ak binding": r"(attestation key|report data|report_data|authentication data).*",
    "invalid point": r"point|not on|attestation key",
    "key type": r"key type|att_key_type|attestation key",
    "tee type": r"tee type|tee_type",
    "fmspc": r"fmspc",
    "variable data": r"variable data|var data|runtime data",
    "reference digest": r"digest",
    "product": r"product|cpuid|certificate",
    "malformed": r"reserved bytes|not .* want|want|malformed|does not fit",
    "not issued by": r"signature is not|issued by|issuer",
    "expired": r"expired|valid from|not yet|next ?update",
    "expir": r"expired|valid from|not yet|next ?update",
    "not yet valid": r"valid from|not yet",
    "revoked": r"revoked",
    "root": r"root|pinned",
    "chain": r"chain|issued by|signature is not",
    "issuer": r"issued by|issuer|signature is not",
    "nonce": r"nonce|challenge|extra ?data",
    "duplicate": r"twice|duplicate|distinct|same|appears",
    "distinct": r"twice|duplicate|distinct|same",
    "debug": r"debug",
    "version": r"version",
    "curve": r"curve|P-\d+",
    "length": r"bytes|length|left over|want \d+",
    "truncat": r"bytes|length|left",
    "trailing": r"bytes|left over|trailing",
    "parse": r"want|not ",
    "format": r"want|not ",
    "signature": r"signature|signed",
    "digest": r"digest|hash|differs",
    "hash": r"digest|hash|differs",
    "measurement": r"measurement",
    "mismatch": r"differ|want|not ",
    "pcr": r"pcr",
    "binding": r"bind|bound|differ",
}


@dataclass(slots=True)
class Observation:
    """What Strongroom found: values in the shape of `expect`, and every refusal on the way."""

    found: dict[str, Any] = field(default_factory=dict)
    refusals: list[StrongroomError] = field(default_factory=list)

    def attempt(self, step: Callable[[], T]) -> T | None:
        """What the step gives; None, and a refusal on record, when it refuses."""
        try:
            return step()
        except StrongroomError as error:
            self.refusals.append(error)
            return None


def problems(expect: Mapping[str, Any], observed: Observation) -> Iterator[str]:
    """Everything that is not as the index says, one sentence each; nothing when the vector passes."""
    wanted = {key: value for key, value in expect.items() if key != "reject"}
    yield from differences(wanted, observed.found, "")
    reason = expect.get("reject")
    said = [str(error) for error in observed.refusals]
    if reason is not None and not said:
        yield f"accepted, want refused: {reason}"
    elif reason is not None and not any(states(sentence, reason) for sentence in said):
        yield f"refused for {said[0]!r}, want: {reason}"
    elif reason is None and said and not any(_is_bad(*leaf) for leaf in _leaves("", wanted)):
        yield f"refused: {said[0]}"


def differences(wanted: Any, found: Any, at: str) -> Iterator[str]:
    """Where `found` lacks or contradicts `wanted`; more in `found` is no difference."""
    if isinstance(wanted, dict):
        if not isinstance(found, Mapping):
            yield f"{at or 'expect'}: found {_short(found)}, want an object"
            return
        for key, value in wanted.items():
            if _PROSE.fullmatch(key) and key not in found:
                continue
            path = f"{at}.{key}" if at else key
            if key not in found:
                yield f"{path}: not observed"
            else:
                yield from differences(value, found[key], path)
    elif isinstance(wanted, list):
        if not isinstance(found, list | tuple) or len(found) != len(wanted):
            yield f"{at}: found {_short(found)}, want {_short(wanted)}"
            return
        for n, (inner, ours) in enumerate(zip(wanted, found, strict=True)):
            yield from differences(inner, ours, f"{at}[{n}]")
    elif wanted != found:
        yield f"{at}: found {_short(found)}, want {_short(wanted)}"


def states(sentence: str, reason: str) -> bool:
    """Whether our sentence gives the stated reason, or one of the alternatives it names."""
    for alternative in re.split(r"\s*/\s*|\s+or\s+|\s*\(or\s+", reason.lower().strip(" ).")):
        patterns = [p for words, p in _SUBJECTS.items() if words in alternative][:1]
        patterns += [re.escape(word) for word in re.findall(r"[a-z_0-9]{4,}", alternative)]
        if patterns and re.search(patterns[0], sentence, re.IGNORECASE | re.DOTALL):
            return True
        if len(patterns) > 1 and all(re.search(p, sentence, re.IGNORECASE) for p in patterns[1:]):
            return True
    return False


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(key, inner)
    else:
        yield key, value


def _is_bad(key: str, value: Any) -> bool:
    """A verdict in an index that is no acceptance."""
    if value is False:
        return _VERDICT.search(key) is not None
    return value in ("NotSupported", "Revoked")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
