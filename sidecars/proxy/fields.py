"""A request body -> the body the engine gets, built anew from the fields listed here.

Three kinds of field. Listed: checked and passed on. Ignored: what OpenAI clients send for services we do not
offer (storage, billing tiers), dropped because dropping harms nobody. Any other: 400 that names it, because dropping
silently what somebody relies on is worse than refusing it. Fields of the engine that reach other hosts, plugins,
templates, tensors or scheduling are in no list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sidecars.proxy.bodies import read_json, write_json
from sidecars.proxy.messages import MESSAGES, RESPONSE_FORMAT, TOOL_CHOICE, TOOLS
from sidecars.proxy.routes import Route
from sidecars.proxy.shapes import Check, either, flag, members, number, one_of, several, text, unknown, whole
from strongroom.errors import FormatError
from strongroom.host.door.refusal import Refusal
from strongroom.wire.canonical import JSON

MAX_DEPTH: Final = 64
MAX_VALUES: Final = 1_000_000  # commas in a body; bounds what parsing may allocate
MAX_STRINGS: Final = 500_000  # in a body; bounds the time that parsing may take
MAX_N: Final = 16  # answers for one request
MAX_PROMPTS: Final = 64
MAX_TOKENS: Final = 1 << 20  # tokens; the engine's context decides
_TEXT_TOKEN: Final = 4  # bytes of text that are about one token
MAX_NAMESPACE: Final = 128  # characters of a client's cache_salt

_STOP: Final = text(1024)
_TOKEN: Final = whole(0, 2**31 - 1)
_STREAM_OPTIONS: Final = members(
    {"include_usage": flag, "continuous_usage_stats": flag, "include_obfuscation": flag}
)


def _stream_options(value: JSON, at: str) -> JSON:
    options = _STREAM_OPTIONS(value, at)
    if isinstance(options, dict):
        options.pop("include_obfuscation", None)  # of OpenAI's own service; the engine has no such thing
    return options


_SHARED: Final[Mapping[str, Check]] = {
    "stream": flag,
    "stream_options": _stream_options,
    "max_tokens": whole(1, MAX_TOKENS),
    "min_tokens": whole(0, MAX_TOKENS),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "top_k": whole(-1, 2**31 - 1),
    "min_p": number(0, 1),
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "repetition_penalty": number(0.01, 10),
    "n": whole(1, MAX_N),
    "seed": whole(-(2**63), 2**63 - 1),
    "stop": either(_STOP, several(_STOP, most=16), wanted="text, or a list of at most 16"),
    "stop_token_ids": several(_TOKEN, most=64),
    "ignore_eos": flag,
    "skip_special_tokens": flag,
    "response_format": RESPONSE_FORMAT,
}
_CHAT: Final[Mapping[str, Check]] = {
    "messages": MESSAGES,
    **_SHARED,
    "max_completion_tokens": whole(1, MAX_TOKENS),
    "logprobs": flag,
    "top_logprobs": whole(0, 20),
    "tools": TOOLS,
    "tool_choice": TOOL_CHOICE,
    "parallel_tool_calls": flag,
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh"),
    "chat_template_kwargs": members({"enable_thinking": flag, "thinking": flag}),
}
_TOKENS: Final = several(_TOKEN, least=1, most=MAX_VALUES)
_PROMPT: Final = either(
    text(32 * 1024 * 1024),
    several(text(32 * 1024 * 1024), least=1, most=MAX_PROMPTS),
    _TOKENS,
    several(_TOKENS, least=1, most=MAX_PROMPTS),
    wanted=f"text, tokens, or a list of at most {MAX_PROMPTS} of either",
)
_COMPLETION: Final[Mapping[str, Check]] = {
    "prompt": _PROMPT,
    **_SHARED,
    "echo": flag,
    "logprobs": whole(0, 20),
}
_EMBEDDING: Final[Mapping[str, Check]] = {
    "input": _PROMPT,
    "encoding_format": one_of("float", "base64"),
    "dimensions": whole(1, 65536),
}
_CHECKS: Final[Mapping[Route, Mapping[str, Check]]] = {
    Route.CHAT: _CHAT,
    Route.COMPLETION: _COMPLETION,
    Route.EMBEDDING: _EMBEDDING,
}
_CONTENT: Final = {Route.CHAT: "messages", Route.COMPLETION: "prompt", Route.EMBEDDING: "input"}
DROPPED: Final = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
})  # fmt: skip
SET: Final = frozenset({"model", "cache_salt"})  # by us, whatever the client sent
_OURS: Final = SET | {"provider"}
_SESSIONS: Final = "aci_session_ids"
_VERIFIED: Final = members({"aci_verified": flag, _SESSIONS: several(text(256), most=256)})


@dataclass(frozen=True, slots=True)
class Question:
    """A checked request: everything the engine will learn of it but the salt."""

    fields: Mapping[str, JSON]
    namespace: str  # the client's own cache_salt, or ""
    stream: bool
    user: str = ""  # whom the client asks for, where it says so

    def __repr__(self) -> str:  # fields hold the prompt
        return f"Question(stream={self.stream})"

    @property
    def logprobs(self) -> bool:
        """Whether the answer will show how likely its tokens were."""
        return self.fields.get("logprobs", False) is not False

    @property
    def sequences(self) -> int:
        """How many of the engine's places its answers take: each prompt's, `n` times."""
        prompts = self.fields.get("prompt", self.fields.get("input"))
        several = isinstance(prompts, list) and bool(prompts) and not isinstance(prompts[0], int)
        n = self.fields.get("n", 1)
        return (len(prompts) if several and isinstance(prompts, list) else 1) * (n if type(n) is int else 1)

    def asked(self, packed: bytes) -> int:
        """Tokens of the question where the engine does not say: token ids are counted, text is four bytes each."""
        prompts = self.fields.get("prompt", self.fields.get("input"))
        if isinstance(prompts, list) and prompts:
            if isinstance(prompts[0], int):
                return len(prompts)
            if isinstance(prompts[0], list):
                return sum(len(prompt) for prompt in prompts if isinstance(prompt, list))
        return len(packed) // _TEXT_TOKEN

    def pack(self, *, model: str, salt: str) -> bytes:
        """The body for the engine."""
        value = {"model": model, **self.fields, "cache_salt": salt}
        return write_json(value)


def read_question(route: Route, body: bytes, *, model: str) -> Question:
    """What a client asks, checked field by field. Refusal 400 or 404 (another model)."""
    if len(body) > MAX_VALUES and body.count(b",") > MAX_VALUES:
        raise Refusal(400, "bad_json", f"the body has more than {MAX_VALUES} values")
    if len(body) > MAX_STRINGS and body.count(b'"') - body.count(b'\\"') > 2 * MAX_STRINGS:
        raise Refusal(400, "bad_json", f"the body has more than {MAX_STRINGS} strings")
    try:
        raw = read_json(body, "body", max_bytes=len(body), max_depth=MAX_DEPTH, max_values=2 * MAX_VALUES)
    except FormatError as error:
        raise Refusal(400, "bad_json", str(error)) from None
    if not isinstance(raw, dict):
        raise Refusal(400, "bad_json", "the body is not a JSON object")
    _require_model(raw.get("model"), model)
    _require_satisfied(raw.get("provider"))
    checks, fields = _CHECKS[route], {}
    for name, value in raw.items():
        if name in _OURS or name in DROPPED:
            continue
        if name not in checks:
            raise unknown(name)
        if value is not None:
            fields[name] = checks[name](value, name)
    _require_content(fields, _CONTENT[route])
    user = raw.get("user")
    return Question(
        fields,
        _namespace(raw.get("cache_salt")),
        fields.get("stream") is True,
        user if isinstance(user, str) else "",
    )


def passed_fields(route: Route) -> frozenset[str]:
    """The names that may reach the engine from a client."""
    return frozenset(_CHECKS[route])


def _require_model(value: JSON, model: str) -> None:
    if not isinstance(value, str):
        raise Refusal.field("model", "the name of a model")
    if value != model:
        raise Refusal(
            404, "model_not_found", "no such model is served here; GET /v1/models lists it", param="model"
        )


def _require_satisfied(provider: JSON) -> None:
    """What a client demands of whoever answers (aci/1). A verified service it has; relayed sessions it will not get."""
    if provider is None:
        return
    demands = _VERIFIED(provider, "provider")
    if isinstance(demands, dict) and _SESSIONS in demands:
        raise Refusal(
            412, "session_not_accepted", "this service relays no sessions", param=f"provider.{_SESSIONS}"
        )


def _require_content(fields: Mapping[str, JSON], name: str) -> None:
    if name not in fields:
        raise Refusal.field(name, "a value")


def _namespace(value: JSON) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAMESPACE:
        raise Refusal.field("cache_salt", f"text of 1..{MAX_NAMESPACE} characters")
    return value
