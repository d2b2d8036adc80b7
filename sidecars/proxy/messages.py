"""What a conversation may hold: messages, tools and answer formats, each checked member by member.

The engine fetches image, audio and video addresses by itself, which would leave the machine in clear; it also takes
serialised tensors. So a content part is text, or an image inside the request as a data: URL.
"""

from typing import Final

from sidecars.proxy.shapes import Check, either, flag, members, one_of, several, sized, tagged, text
from strongroom.host.door.refusal import Refusal
from strongroom.wire.canonical import JSON

MAX_MESSAGES: Final = 4096
MAX_TEXT: Final = 32 * 1024 * 1024  # characters; the body's own limit decides
MAX_TOOLS: Final = 128
MAX_SCHEMA: Final = 64 * 1024  # bytes of JSON; the engine compiles schemas
_NAME: Final = text(256)
_TEXT: Final = text(MAX_TEXT)


def _content(value: JSON, at: str) -> JSON:
    return _PARTS(value, at) if isinstance(value, list) else _TEXT(value, at)


def _data_url(value: JSON, at: str) -> JSON:
    if not isinstance(value, str) or not value.startswith("data:image/"):
        raise Refusal.field(at, "a data:image/ URL, because nothing is fetched from here")
    return value


_IMAGE: Final = members({"url": _data_url, "detail": one_of("auto", "low", "high")}, need=("url",))
_PART: Final = tagged({
    "text": members({"type": one_of("text"), "text": _TEXT}, need=("text",)),
    "image_url": members({"type": one_of("image_url"), "image_url": _IMAGE}, need=("image_url",)),
    "refusal": members({"type": one_of("refusal"), "refusal": _TEXT}, need=("refusal",)),
})  # fmt: skip
_PARTS: Final = several(_PART, most=1024)
_CALL: Final = members(
    {
        "id": _NAME,
        "type": one_of("function"),
        "function": members({"name": _NAME, "arguments": _TEXT}, need=("name",)),
    },
    need=("function",),
)
_MESSAGE: Final = members(
    {
        "role": one_of("system", "developer", "user", "assistant", "tool"),
        "content": _content,
        "name": _NAME,
        "refusal": _TEXT,
        "reasoning": _TEXT,
        "reasoning_content": _TEXT,
        "tool_calls": several(_CALL, most=MAX_TOOLS),
        "tool_call_id": _NAME,
    },
    need=("role",),
)
MESSAGES: Final[Check] = several(_MESSAGE, least=1, most=MAX_MESSAGES)

_FUNCTION: Final = members(
    {"name": _NAME, "description": text(MAX_SCHEMA), "parameters": sized(MAX_SCHEMA), "strict": flag},
    need=("name",),
)
TOOLS: Final[Check] = several(
    tagged({"function": members({"type": one_of("function"), "function": _FUNCTION}, need=("function",))}),
    most=MAX_TOOLS,
)
TOOL_CHOICE: Final[Check] = either(
    one_of("none", "auto", "required"),
    members(
        {"type": one_of("function"), "function": members({"name": _NAME}, need=("name",))}, need=("function",)
    ),
    wanted="none, auto, required, or one function by name",
)

_SCHEMA: Final = members(
    {"name": _NAME, "description": text(MAX_SCHEMA), "schema": sized(MAX_SCHEMA), "strict": flag},
    need=("name", "schema"),
)
RESPONSE_FORMAT: Final[Check] = tagged({
    "text": members({"type": one_of("text")}),
    "json_object": members({"type": one_of("json_object")}),
    "json_schema": members({"type": one_of("json_schema"), "json_schema": _SCHEMA}, need=("json_schema",)),
})  # fmt: skip
