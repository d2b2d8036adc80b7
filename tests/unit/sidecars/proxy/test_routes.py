"""Mirrors sidecars/proxy/routes.py."""

import pytest

from sidecars.proxy.routes import ASKED, Destination, Route, destination
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
        ("POST", "/v1/embeddings", Destination(Route.EMBEDDING)),
        ("GET", "/", Destination(Route.PAGE)),
        ("GET", "/.well-known/strongroom", Destination(Route.WELL_KNOWN)),
        ("GET", "/v1/usage", Destination(Route.USAGE)),
        ("GET", "/v1/receipts/log/head", Destination(Route.LOG_HEAD)),
        ("GET", "/v1/attestation/report", Destination(Route.REPORT)),
        ("GET", "/v1/aci/attestation", Destination(Route.ACI_ATTESTATION)),
        ("GET", f"/v1/signature/chatcmpl-{ID}", Destination(Route.SIGNATURE, receipt=f"chatcmpl-{ID}")),
        ("GET", f"/v1/aci/receipts/{ID}", Destination(Route.ACI_RECEIPT, receipt=ID)),
        ("GET", f"/v1/aci/receipts/cmpl-{ID}", Destination(Route.ACI_RECEIPT, receipt=f"cmpl-{ID}")),
        ("GET", f"/v1/receipts/{ID}?proof=1", Destination(Route.RECEIPT, receipt=ID, query={"proof": "1"})),
        (
            "GET",
            "/v1/receipts/log/consistency?second=7&first=0",
            Destination(Route.LOG_CONSISTENCY, query={"first": "0", "second": "7"}),
        ),
        (
            "GET",
            f"/v1/signature/{ID}?signing_algo=ecdsa",
            Destination(Route.SIGNATURE, receipt=ID, query={"signing_algo": "ecdsa"}),
        ),
        (
            "GET",
            f"/v1/attestation/report?nonce={NONCE.upper()}&signing_algo=ed25519&version=2&signing_address=0x{'c' * 40}",
            Destination(
                Route.REPORT,
                nonce=bytes.fromhex(NONCE),
                query={"signing_algo": "ed25519", "version": "2", "signing_address": f"0x{'c' * 40}"},
            ),
        ),
        (
            "GET",
            f"/v1/aci/attestation?nonce={NONCE}",
            Destination(Route.ACI_ATTESTATION, nonce=bytes.fromhex(NONCE)),
        ),
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


def test_what_the_engine_answers_needs_a_token_and_what_an_auditor_asks_does_not() -> None:
    assert not any(route.open for route in ASKED)
    assert {route for route in Route if route.open} == {
        Route.PAGE, Route.HEALTH, Route.WELL_KNOWN, Route.EVIDENCE, Route.REPORT, Route.ACI_ATTESTATION,
        Route.LOG_HEAD, Route.LOG_CONSISTENCY, Route.SEALED, Route.SEALED_KEY,
    }  # fmt: skip


ENGINE_ONLY = """
/metrics /load /version /server_info /health /ping /openapi.json /docs /redoc /tokenize /detokenize /invocations
/v1/responses /v1/messages /v1/score /v1/rerank /v2/rerank /v1/audio/transcriptions /v1/realtime
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
        "/v1/receipts",
        "/v1/signature",
        "/v1/aci/receipts/",
        f"/v1/receipts/chatcmpl-{ID}",
        f"/v1/signature/{ID}-x",
        f"/v1/signature/Chatcmpl-{ID}",
        f"/v1/signature/-{ID}",
        "/v1/receipts/log",
        "/v1/receipts/log/head/",
        "//",
        "/index.html",
        "/.well-known/strongroom/",
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
        ("POST", "/"),
        ("POST", "/v1/usage"),
        ("GET", "/v1/embeddings"),
        ("PUT", "/v1/embeddings"),
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


REPORT = "/v1/attestation/report"
CONSISTENCY = "/v1/receipts/log/consistency"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (f"{REPORT}?", "unexpected_query"),
        (f"{REPORT}?nonce={NONCE}&nonce={NONCE}", "unexpected_query"),
        (f"{REPORT}?nonce={NONCE}&", "unexpected_query"),
        (f"{REPORT}?other=1", "unexpected_query"),
        (f"{REPORT}?nonce={NONCE}0", "bad_nonce"),
        (f"{REPORT}?nonce=", "bad_nonce"),
        (f"{REPORT}?nonce=%61{NONCE[1:]}", "bad_nonce"),
        (f"{REPORT}?nonce=+{NONCE[1:]}", "bad_nonce"),
        (f"{REPORT}?signing_algo=rsa", "invalid_signing_algo"),
        (f"{REPORT}?signing_algo=ECDSA", "invalid_signing_algo"),
        (f"{REPORT}?version=3", "bad_query"),
        (f"{REPORT}?signing_address=0x{'c' * 39}", "bad_query"),
        (f"{REPORT}?model=<script>", "bad_query"),
        (f"{REPORT}?model={'m' * 2000}", "unexpected_query"),
        (f"/v1/aci/attestation?nonce={NONCE.upper()}", "bad_nonce"),
        (f"/v1/receipts/{ID}?proof=2", "bad_query"),
        (f"/v1/signature/{ID}?signing_algo=x", "invalid_signing_algo"),
        (CONSISTENCY, "bad_query"),
        (f"{CONSISTENCY}?first=1", "bad_query"),
        (f"{CONSISTENCY}?first=1&second=-2", "bad_query"),
        (f"{CONSISTENCY}?first=01&second=2", "bad_query"),
        (f"{CONSISTENCY}?first=1&second=1{'0' * 15}", "bad_query"),
        (f"{CONSISTENCY}?first=1&second=\u0662", "bad_query"),
        ("/v1/receipts/log/head?x=1", "unexpected_query"),
        ("/?x", "unexpected_query"),
    ],
)
def test_a_query_is_of_its_form_or_refused(target: str, code: str) -> None:
    with pytest.raises(Refusal, match=f"400 {code}$"):
        destination("GET", target)


def test_a_refused_query_is_not_repeated() -> None:
    secret = "correct-horse"
    for target in (f"{REPORT}?{secret}=1", f"{REPORT}?version={secret}", f"/?{secret}"):
        with pytest.raises(Refusal) as caught:
            destination("GET", target)
        assert secret not in caught.value.message
