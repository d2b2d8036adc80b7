"""Mirrors sidecars/proxy/engine/surface.py. The vector is what engine/listing.py printed for the package itself."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from sidecars.proxy.engine import surface
from sidecars.proxy.engine.surface import SURFACES, Standing, check
from sidecars.proxy.fields import passed_fields
from sidecars.proxy.routes import ASKED, Route
from strongroom.errors import ProtocolError
from tests.fakes.vllm import LISTING, described

REAL: dict[str, Any] = json.loads(LISTING.read_text())
CHAT = "ChatCompletionRequest"


def changed(change: Callable[[Any], Any]) -> Any:
    description = copy.deepcopy(REAL["openapi"])
    change(description)
    return description


def refused(description: Any, *, version: str = "0.32.0", routes: tuple[str, ...] = ()) -> str:
    with pytest.raises(ProtocolError) as caught:
        check(description, version=version, routes=routes)
    return str(caught.value)


@pytest.mark.guarantee("G17")
def test_all_that_the_real_engine_exposes_is_known() -> None:
    assert check(REAL["openapi"], version=REAL["version"], routes=REAL["routes"]) == ASKED
    assert check(described(), version="0.32.0+cpu") == {Route.CHAT, Route.COMPLETION}


@pytest.mark.guarantee("G17")
def test_a_new_route_is_refused_by_name() -> None:
    added = changed(lambda d: d["paths"].update({"/v1/teleport": {"post": {}}, "/v1/peek": {"get": {}}}))
    assert refused(added) == ("engine: unknown routes GET /v1/peek, POST /v1/teleport in version 0.32.0")
    other_method = changed(lambda d: d["paths"]["/health"].update({"delete": {}}))
    assert "unknown route DELETE /health" in refused(other_method)
    assert "WEBSOCKET /v1/telepathy" in refused(REAL["openapi"], routes=("WEBSOCKET /v1/telepathy",))


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize("schema", [CHAT, "CompletionRequest", "EmbeddingChatRequest"])
def test_a_new_field_is_refused_by_name(schema: str) -> None:
    added = changed(lambda d: d["components"]["schemas"][schema]["properties"].update({"summon": {}}))
    assert "unknown field summon of /v1/" in refused(added)


def test_a_field_that_the_engine_no_longer_takes_is_refused_too() -> None:
    less = changed(lambda d: d["components"]["schemas"][CHAT]["properties"].pop("seed"))
    assert refused(less) == "engine: /v1/chat/completions no longer takes the field seed in version 0.32.0"


@pytest.mark.parametrize("version", ["0.33.0", "0.3", "1.0", "", "0.32", "0.320.1", "0.32.9"])
def test_only_versions_with_a_table(version: str) -> None:
    if version.startswith("0.32") and not version.startswith("0.320"):
        assert check(REAL["openapi"], version=version)
    else:
        assert "is not in the table of interfaces, want 0.32" in refused(REAL["openapi"], version=version)


@pytest.mark.parametrize(
    "description",
    [
        None, [], {}, {"paths": None}, {"paths": []}, {"paths": {"/health": None}}, {"paths": {}},
        changed(lambda d: [d["paths"].pop(route.value) for route in ASKED]),
        changed(lambda d: d["paths"]["/v1/completions"]["post"].pop("requestBody")),
        changed(lambda d: d["components"].pop("schemas")),
        changed(lambda d: d["components"]["schemas"].pop(CHAT)),
        changed(lambda d: d["components"]["schemas"].update({CHAT: {"$ref": f"#/components/schemas/{CHAT}"}})),
        changed(lambda d: d["components"]["schemas"].update({CHAT: {"properties": []}})),
        changed(lambda d: d["components"]["schemas"].update({CHAT: {"$ref": "http://elsewhere/x"}})),
    ],
)  # fmt: skip
def test_a_description_that_says_less_is_no_proof(description: Any) -> None:
    assert refused(description).startswith("engine: ")


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize("series", SURFACES)
@pytest.mark.parametrize("route", sorted(ASKED))
def test_what_is_passed_is_not_closed(series: str, route: Route) -> None:
    assert not passed_fields(route) & SURFACES[series].closed[route]
    assert SURFACES[series].routes[f"POST {route.value}"] is Standing.SERVED


def test_the_tables_for_people() -> None:
    rows = dict(surface.routes(REAL["openapi"], version="0.32.0", routes=[*REAL["routes"], "GET /new"]))
    assert rows["POST /v1/completions"] == "served" and rows["GET /health"] == "asked"
    assert rows["POST /invocations"] == "closed" and rows["GET /new"] == "UNKNOWN"
    fields = dict(surface.fields(REAL["openapi"], Route.CHAT, version="0.32.0"))
    assert (fields["seed"], fields["cache_salt"], fields["user"], fields["kv_transfer_params"]) == (
        "passed", "set", "dropped", "refused",
    )  # fmt: skip
    new = changed(lambda d: d["components"]["schemas"][CHAT]["properties"].update({"summon": {}}))
    assert dict(surface.fields(new, Route.CHAT, version="0.32.0"))["summon"] == "UNKNOWN"
    assert dict(surface.fields(described(), Route.EMBEDDING, version="0.32.0")) == {}
