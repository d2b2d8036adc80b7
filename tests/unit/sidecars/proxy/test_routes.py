"""Mirrors sidecars/proxy/routes.py."""

import pytest

from sidecars.proxy.routes import Destination, Route, destination
from strongroom.host.door.refusal import Refusal

ID = "0123456789abcdef" * 2
NONCE = "ab" * 32


@pytest.mark.parametrize(
    ("method", "target", "wanted"),
    [
        ("POST", "/v1/chat/completions", Destination(Route.CHAT)),
        ("POST", "/v1/completions", Destination(Route.COMPLETION)),
        ("GET", "/v1/models", Destination(Route.MODELS)),
        ("GET", "/healthz", Destination(Route.HEALTH)),
        ("GET", f"/v1/receipts/{ID}", Destination(Route.RECEIPT, receipt=ID)),
        (
            "GET",
            f"/.well-known/strongroom/evidence?nonce={NONCE}",
            Destination(Route.EVIDENCE, nonce=bytes.fromhex(NONCE)),
        ),
    ],
)
def test_what_exists(method: str, target: str, wanted: Destination) -> None:
    assert destination(method, target) == wanted


ENGINE_ONLY = """
/ /metrics /load /version /server_info /health /ping /openapi.json /docs /redoc /tokenize /detokenize /invocations
/v1/embeddings /v1/responses /v1/messages /v1/score /v1/rerank /v2/rerank /v1/audio/transcriptions /v1/realtime
/v1/load_lora_adapter /v1/unload_lora_adapter /sleep /wake_up /pause /resume /collective_rpc /reset_prefix_cache
/update_weights /start_profile /abort_requests /scale_elastic_ep /kv_event_sources /inference/v1/generate /pooling
/classify /score /rerank /generative_scoring /v1/systemone /v1/chat/completions/batch /v1/chat/completions/render
""".split()


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize("target", ENGINE_ONLY)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_other_route_of_the_engine_exists(method: str, target: str) -> None:
    with pytest.raises(Refusal, match="404 not_found"):
        destination(method, target)


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    "target",
    [
        "/v1/completions/",
        "/v1//completions",
        "/v1/./completions",
        "/v1/x/../completions",
        "/V1/completions",
        "/v1/completions%00",
        "/v1/%63ompletions",
        "/v1/%2563ompletions",
        "/v1\\completions",
        "/v1/completions;x=1",
        f"/v1/receipts/{ID}0",
        f"/v1/receipts/{ID.upper()}",
        "/v1/receipts/",
        "/v1/receipts/../models",
    ],
)
def test_no_other_spelling_exists(target: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(Refusal, match="404 not_found"):
            destination(method, target)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/completions"),
        ("POST", "/v1/models"),
        ("HEAD", "/healthz"),
        ("DELETE", f"/v1/receipts/{ID}"),
    ],
)
def test_no_other_method_exists(method: str, target: str) -> None:
    with pytest.raises(Refusal, match="404 not_found"):
        destination(method, target)


@pytest.mark.parametrize(
    "query", ["", "nonce=", "nonce=ab", f"nonce={NONCE}&x=1", f"x=1&nonce={NONCE}", f"NONCE={NONCE}"]
)
def test_the_nonce_is_exactly_64_hex_digits(query: str) -> None:
    with pytest.raises(Refusal, match="400 bad_nonce"):
        destination("GET", f"/.well-known/strongroom/evidence?{query}")


def test_no_other_resource_takes_a_query() -> None:
    with pytest.raises(Refusal, match="400 unexpected_query"):
        destination("POST", "/v1/completions?api-version=1")
