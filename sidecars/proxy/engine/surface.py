"""What an engine exposes, and where each part of it stands: a table for each version, and nothing outside it is served.

The engine's own description of its interface is held against the table before the door opens. A route or a field that
is in neither is new, and new means unread: vLLM adds some in every release, and one of them may reach other hosts,
other tenants or the weights.

served   passed on, rebuilt from listed fields (fields.py)
asked    asked by the door itself, never for a client
closed   known, and out of reach

Of a served route's fields: passed (checked, and passed on), set (by the door itself), dropped (a client may send it,
the engine does not get it), refused (400).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecars.proxy.fields import DROPPED, SET, passed_fields
from sidecars.proxy.routes import ASKED, Route
from strongroom.errors import ProtocolError
from strongroom.wire.canonical import JSON

_UNKNOWN: Final = "UNKNOWN"


class Standing(StrEnum):
    SERVED = "served"
    ASKED = "asked"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Surface:
    """What is known of one version. A route is a method and a path, as in "POST /v1/completions"."""

    routes: Mapping[str, Standing]
    closed: Mapping[Route, frozenset[str]]  # fields that never reach the engine from a client


def _routes(**standings: str) -> dict[str, Standing]:
    return {
        f"{method} {path}": Standing(standing)
        for standing, lines in standings.items()
        for method, *paths in (line.split() for line in lines.splitlines() if line.strip())
        for path in paths
    }


_INTERNAL: Final = """
    add_special_tokens cache_salt mm_processor_kwargs model priority request_id truncate_prompt_tokens truncation_side
    user
""".split()
_SAMPLING: Final = """
    allowed_token_ids bad_words ec_transfer_params include_stop_str_in_output kv_transfer_params length_penalty
    logit_bias logprob_token_ids mm_payload prompt_logprobs repetition_detection return_mm_kwargs return_token_ids
    return_token_offsets return_tokens_as_token_ids routed_experts_prompt_start session_id
    spaces_between_special_tokens stream_interval structured_outputs thinking_token_budget use_beam_search vllm_xargs
    watermarking
""".split()
_TEMPLATE: Final = """
    add_generation_prompt chat_template continue_final_message media_io_kwargs
""".split()
_VLLM_0_32: Final = Surface(
    _routes(
        served="POST /v1/chat/completions /v1/completions /v1/embeddings",
        asked="GET /health /v1/models /version /openapi.json",
        closed="""
            GET /docs /docs/oauth2-redirect /redoc /kv_event_sources /load /metrics /ping
            GET /v1/responses/{response_id}
            HEAD /docs /docs/oauth2-redirect /openapi.json /redoc
            MOUNT /metrics
            POST /detokenize /generative_scoring /inference/v1/abort_requests /inference/v1/generate /invocations
            POST /is_scaling_elastic_ep /ping /pooling /rerank /scale_elastic_ep /score /tokenize
            POST /v1/chat/completions/batch /v1/chat/completions/derender /v1/chat/completions/render
            POST /v1/completions/derender /v1/completions/render /v1/messages /v1/messages/count_tokens
            POST /v1/messages/render /v1/rerank /v1/responses /v1/responses/render
            POST /v1/responses/{response_id}/cancel /v1/score /v1/systemone /v2/embed /v2/rerank
            POST /classify /v1/audio/transcriptions /v1/audio/translations
            WEBSOCKET /v1/realtime
        """,
    ),
    {
        Route.CHAT: frozenset([
            *_INTERNAL, *_SAMPLING, *_TEMPLATE, "documents", "echo", "include_reasoning", "return_prompt_text",
        ]),
        Route.COMPLETION: frozenset([*_INTERNAL, *_SAMPLING, "prompt_embeds", "suffix"]),
        Route.EMBEDDING: frozenset([
            *_INTERNAL, *_TEMPLATE, "chat_template_kwargs", "embed_dtype", "endianness", "messages", "padding",
            "use_activation",
        ]),
    },
)  # fmt: skip
SURFACES: Final[Mapping[str, Surface]] = {"0.32": _VLLM_0_32}


def surface(version: str) -> Surface:
    """The table for an engine's version, such as 0.32.0 or 0.32.0+cpu. ProtocolError when there is none."""
    series = ".".join(version.split(".")[:2])
    if series not in SURFACES:
        known = ", ".join(sorted(SURFACES))
        raise ProtocolError(f"engine: version {version} is not in the table of interfaces, want {known}")
    return SURFACES[series]


def check(description: JSON, *, version: str, routes: Iterable[str] = ()) -> frozenset[Route]:
    """What the engine serves of what we serve, if all it describes is known.

    `description` is its OpenAPI document; `routes` are more of its routes, which that may leave out. Raises
    ProtocolError naming every unknown route or field.
    """
    known = surface(version)
    operations = _operations(description)
    if strangers := sorted({*operations, *routes} - known.routes.keys()):
        raise ProtocolError(
            f"engine: unknown route{_s(strangers)} {', '.join(strangers)} in version {version}"
        )
    served = frozenset(route for route in ASKED if f"POST {route.value}" in operations)
    for route in sorted(served):
        _check_fields(route, _fields(description, operations[f"POST {route.value}"]), known, version)
    if not served:
        raise ProtocolError("engine: it serves nothing that the door offers")
    return served


def routes(description: JSON, *, version: str, routes: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Each route and where it stands, UNKNOWN for one that is in no table."""
    known = surface(version).routes
    for route in sorted({*_operations(description), *routes}):
        yield route, known.get(route, _UNKNOWN)


def fields(description: JSON, route: Route, *, version: str) -> Iterator[tuple[str, str]]:
    """Each field that the engine takes on a route, and where it stands. None for a route it does not serve."""
    operation = _operations(description).get(f"POST {route.value}")
    closed, passed = surface(version).closed[route], passed_fields(route)
    for name in sorted(_fields(description, operation)) if operation is not None else ():
        if name in passed:
            yield name, "passed"
        elif name in SET:
            yield name, "set"
        elif name in closed:
            yield name, "dropped" if name in DROPPED else "refused"
        else:
            yield name, _UNKNOWN


def _check_fields(route: Route, found: frozenset[str], known: Surface, version: str) -> None:
    passed = passed_fields(route)
    if strangers := sorted(found - passed - known.closed[route]):
        raise ProtocolError(
            f"engine: unknown field{_s(strangers)} {', '.join(strangers)} of {route} in version {version}"
        )
    if lost := sorted(passed - found):
        raise ProtocolError(
            f"engine: {route} no longer takes the field{_s(lost)} {', '.join(lost)} in version {version}"
        )


def _s(several: list[str]) -> str:
    return "s" if len(several) > 1 else ""


def _operations(description: JSON) -> dict[str, JSON]:
    paths = _object(_object(description, "itself").get("paths"), "paths")
    return {
        f"{method.upper()} {path}": operation
        for path, item in paths.items()
        for method, operation in _object(item, path).items()
    }


def _fields(description: JSON, operation: JSON) -> frozenset[str]:
    match operation:
        case {"requestBody": {"content": {"application/json": {"schema": schema}}}}:
            return frozenset(_properties(description, schema, 8))
    raise ProtocolError("engine: its description does not say what a served route takes")


def _properties(description: JSON, schema: JSON, depth: int) -> set[str]:
    value = _object(schema, "schema")
    if not depth:
        raise ProtocolError("engine: its description nests too deeply")
    found: set[str] = set()
    reference = value.get("$ref")
    if isinstance(reference, str):
        found |= _properties(description, _resolve(description, reference), depth - 1)
    for several in ("anyOf", "oneOf", "allOf"):
        branches = value.get(several, [])
        for branch in branches if isinstance(branches, list) else []:
            found |= _properties(description, branch, depth - 1)
    return found | _object(value.get("properties", {}), "properties").keys()


def _resolve(description: JSON, reference: str) -> JSON:
    prefix, _, name = reference.rpartition("/")
    components = _object(_object(description, "itself").get("components"), "components")
    schemas = _object(components.get("schemas"), "schemas")
    if prefix != "#/components/schemas" or name not in schemas:
        raise ProtocolError(f"engine: its description refers to {reference[:80]!r}, which it lacks")
    return schemas[name]


def _object(value: JSON, what: str) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise ProtocolError(f"engine: its description has no object for {what[:80]}")
    return value
