"""Resource policies in Rego, as a Trustee takes them: package `policy`, decision `allow`. The only module that
imports the interpreter, which is an extra.

    data      {"plugin": "resource", "resource-path": [repository, type, tag], "query": {...}}
    input     the claims of the guest's token

Only `true` allows. Undefined, another value, an error and a missing interpreter all deny, and say so.
"""

import importlib
import json
import threading
from collections.abc import Mapping
from typing import Any, Final

from strongroom.errors import ConfigError
from strongroom.wire.canonical import JSON
from strongroom.wire.line import sentence

MAX_REGO: Final = 256 << 10  # bytes
_DECISION: Final = "data.policy.allow"
_LOCK: Final = threading.Lock()  # the interpreter says nothing of threads


def check_rego(source: str, subject: str) -> None:
    """ConfigError for what is not Rego, or has no decision."""
    if len(source.encode()) > MAX_REGO:
        raise ConfigError(f"{subject}: longer than {MAX_REGO} bytes")
    library = _library()
    with _LOCK:
        interpreter = _interpreter(library)
        try:
            interpreter.add_module("policy.rego", source)
            interpreter.query(_DECISION)
        except library[0].RegoError as error:
            raise ConfigError(f"{subject}: {sentence(str(error), most=200)}") from None
    if "allow" not in source or "package policy" not in source:
        raise ConfigError(
            f"{subject}: no `allow` in `package policy`, want Trustee's shape of a resource policy"
        )


def rego_refusal(source: str, claims: Mapping[str, JSON], data: Mapping[str, JSON]) -> str | None:
    """Why the policy does not allow it; None when it does."""
    try:
        library = _library()
    except ConfigError as error:
        return str(error)
    with _LOCK:
        try:
            interpreter = _interpreter(library)
            interpreter.add_module("policy.rego", source)
            interpreter.add_data_json(json.dumps(dict(data)))
            interpreter.set_input(dict(claims))
            output = interpreter.query(_DECISION)
            found = output.results[0].expressions if output.ok() and output.results else []
        except Exception as error:  # noqa: BLE001 - whatever happens in there, it did not allow
            return f"rego policy failed: {type(error).__name__}"
    if found == [True] and found[0] is True:
        return None
    if not found:
        return "rego policy: allow is undefined, want true"
    return f"rego policy: allow is {sentence(json.dumps(found[0]), most=40)}, want true"


def _library() -> tuple[Any, Any]:
    """The interpreter's constants and errors, and the interpreter."""
    try:
        return importlib.import_module("regopy.rego_shared"), importlib.import_module("regopy")
    except ImportError:
        raise ConfigError("rego policy: regopy is not installed, want strongroom[rego]") from None


def _interpreter(library: tuple[Any, Any]) -> Any:
    """A fresh one for every question: nothing of one guest is there for the next."""
    shared, regopy = library
    interpreter = regopy.Interpreter()
    interpreter.log_level = shared.LogLevel.NONE  # or it prints to our stderr
    return interpreter
