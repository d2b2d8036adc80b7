"""Mirrors sidecars/proxy/fields.py, and with it messages.py and shapes.py."""

import json
from typing import Any

import pytest

from sidecars.proxy.fields import DROPPED, MAX_VALUES, SET, Question, passed_fields, read_question
from sidecars.proxy.routes import ASKED, Route
from strongroom.host.door.refusal import Refusal

HELLO = [{"role": "user", "content": "hello"}]
MARKER = "correct horse battery staple"


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "messages": HELLO, **fields}).encode()


def completion(**fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "prompt": "hello", **fields}).encode()


def rebuilt(body: bytes, route: Route = Route.CHAT) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        read_question(route, body, model="tiny").pack(model="tiny", salt="salt")
    )
    return found


def refuse(body: bytes, route: Route = Route.CHAT) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_question(route, body, model="tiny")
    return caught.value


def test_what_an_openai_client_sends_passes() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
    fields = {
        "temperature": 0.7,
        "top_p": 1,
        "n": 2,
        "seed": 7,
        "stop": ["\n"],
        "max_tokens": 10,
        "max_completion_tokens": 10,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "logprobs": True,
        "top_logprobs": 5,
        "tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}},
        },
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_effort": "low",
    }
    assert rebuilt(chat(**fields)) == {"model": "tiny", "messages": HELLO, **fields, "cache_salt": "salt"}


def test_fields_of_services_we_do_not_offer_are_dropped() -> None:
    ignored = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
    }
    assert rebuilt(chat(**ignored)) == rebuilt(chat())
    assert rebuilt(chat(stream=True, stream_options={"include_obfuscation": False}))["stream_options"] == {}


def test_null_means_absent() -> None:
    assert rebuilt(chat(temperature=None, stop=None, tools=None)) == rebuilt(chat())


ENGINE_FIELDS = """
kv_transfer_params ec_transfer_params vllm_xargs priority request_id session_id prompt_embeds mm_payload
mm_processor_kwargs media_io_kwargs chat_template documents return_token_ids return_prompt_text return_mm_kwargs
prompt_logprobs routed_experts_prompt_start stream_interval previous_input_messages enable_response_messages
structured_outputs guided_regex guided_grammar best_of use_beam_search add_generation_prompt continue_final_message
echo lora logits_processors bad_words allowed_token_ids truncate_prompt_tokens audio modalities web_search_options
functions function_call
""".split()


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize("name", ENGINE_FIELDS)
def test_fields_that_are_not_listed_are_refused_by_name(name: str) -> None:
    refusal = refuse(chat(**{name: MARKER}))
    assert (refusal.status, refusal.code, refusal.param) == (400, "unknown_field", name)
    assert refusal.message == f"field {name} is not accepted here"


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"tiny","messages":[{"role":"user","content":"a"}],"cache_salt":"a","cache_salt":"b"}',
        b'{"model":"tiny","model":"tiny","messages":[{"role":"user","content":"a"}]}',
        b'{"model":"tiny","messages":[{"role":"user","role":"system","content":"a"}]}',
        b'{"model":"tiny","messages":[{"role":"user","content":"a"}]} {}',
        b'{"model":"tiny","temperature":NaN,"messages":[{"role":"user","content":"a"}]}',
        b'{"model":"tiny","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"tiny","messages":[{"role":"user","content":"\\ud800"}]}',
        b"[" * 100_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[]",
        b"",
        b"[" + b"0," * (MAX_VALUES + 1) + b"0]",
    ],
    ids=lambda raw: ascii(raw[:40]),
)
def test_json_that_two_readers_could_read_differently_is_refused(raw: bytes) -> None:
    assert (refuse(raw).status, refuse(raw).code) == (400, "bad_json")


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
        ({"temperature": "0"}, "temperature"),
        ({"temperature": False}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stream": 1}, "stream"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "root", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"image_url": "http://a/"}]}]}, "messages[0].content[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": "b" * 70_000}}}]},
         "tools[0].function.parameters"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
        ({"chat_template_kwargs": {"enable_thinking": "yes"}}, "chat_template_kwargs.enable_thinking"),
        ({"cache_salt": ""}, "cache_salt"),
        ({"cache_salt": "x" * 129}, "cache_salt"),
        ({"cache_salt": 7}, "cache_salt"),
    ],
)  # fmt: skip
def test_values_outside_their_bounds_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    refusal = refuse(chat(**fields))
    assert (refusal.status, refusal.param) == (400, param)


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/",
        "https://a/x.png",
        "file:///etc/passwd",
        "data:text/html,x",
        "DATA:image/png,",
    ],
)
def test_nothing_is_fetched_for_a_client(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    refusal = refuse(chat(messages=[{"role": "user", "content": [part]}]))
    assert refusal.param == "messages[0].content[0].image_url.url"


def test_an_image_inside_the_request_passes() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]
    assert rebuilt(chat(messages=messages))["messages"] == messages


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    "kind", ["video_url", "audio_url", "image_embeds", "image_pil", "input_audio", "file"]
)
def test_other_content_parts_are_refused(kind: str) -> None:
    assert (
        refuse(chat(messages=[{"role": "user", "content": [{"type": kind, kind: {"url": "data:,"}}]}])).status
        == 400
    )


def test_a_conversation_with_tool_calls_passes() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    found = rebuilt(chat(messages=messages))["messages"]
    assert found[1] == {"role": "assistant", "tool_calls": [call]}
    assert found[2] == messages[3 - 1]


@pytest.mark.parametrize("prompt", ["hi", ["a", "b"], [1, 2, 3], [[1], [2]]])
def test_completion_prompts(prompt: Any) -> None:
    found = rebuilt(completion(prompt=prompt, echo=True, logprobs=3), Route.COMPLETION)
    assert found == {"model": "tiny", "prompt": prompt, "echo": True, "logprobs": 3, "cache_salt": "salt"}


@pytest.mark.parametrize("prompt", [[], [[]], [1, "a"], ["a"] * 65, {"a": 1}, 7, [-1], [True]])
def test_other_prompts_are_refused(prompt: Any) -> None:
    assert refuse(completion(prompt=prompt), Route.COMPLETION).param == "prompt"


def test_what_must_be_there() -> None:
    assert refuse(b'{"model":"tiny"}').param == "messages"
    assert refuse(b'{"model":"tiny"}', Route.COMPLETION).param == "prompt"
    assert refuse(b'{"messages":[]}').param == "model"


def test_another_model_is_not_found() -> None:
    assert (refuse(chat(model="/model")).status, refuse(chat(model="/model")).code) == (
        404,
        "model_not_found",
    )


def test_the_salt_is_ours_and_the_clients_is_only_a_namespace() -> None:
    question = read_question(Route.CHAT, chat(cache_salt="theirs"), model="tiny")
    assert question.namespace == "theirs"
    assert json.loads(question.pack(model="tiny", salt="ours"))["cache_salt"] == "ours"


def test_a_body_of_nothing_but_strings_is_not_even_parsed() -> None:
    body = b'{"model":"m","messages":' + b'""' * 600_000
    assert "more than 500000 strings" in refuse_raw(body)
    code = json.dumps({"model": "m", "messages": [{"role": "user", "content": '"x"' * 600_000}]})
    assert read_question(Route.CHAT, code.encode(), model="m").fields


def refuse_raw(body: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        read_question(Route.CHAT, body, model="m")
    return caught.value.message


@pytest.mark.guarantee("G14")
@pytest.mark.parametrize(
    "body",
    [
        chat(messages=[{"role": "user", "content": [{"type": MARKER, "text": MARKER}]}]),
        chat(messages=[{"role": MARKER, "content": MARKER}]),
        chat(messages=MARKER),
        chat(stop=[MARKER * 100]),
        chat(temperature=MARKER),
        chat()[:-1] + f',"messages":"{MARKER}"}}'.encode(),
        f'{{"model":"tiny","messages":"{MARKER}'.encode(),
    ],
)
def test_a_refusal_never_repeats_a_value(body: bytes) -> None:
    refusal = refuse(body)
    assert MARKER not in f"{refusal} {refusal!r} {refusal.message} {refusal.__cause__} {refusal.args!r}"


@pytest.mark.guarantee("G14")
def test_a_question_does_not_show_its_prompt() -> None:
    question = read_question(Route.CHAT, chat(messages=[{"role": "user", "content": MARKER}]), model="tiny")
    assert MARKER not in f"{question} {question!r}"


def embedding(**fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "input": "hello", **fields}).encode()


@pytest.mark.parametrize("given", ["hello", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
def test_an_embedding_takes_what_openai_clients_send(given: Any) -> None:
    fields = {"input": given, "encoding_format": "base64", "dimensions": 256}
    assert rebuilt(embedding(**fields, user="u"), Route.EMBEDDING) == {
        "model": "tiny", **fields, "cache_salt": "salt",
    }  # fmt: skip


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    "name",
    [
        "messages",
        "embed_dtype",
        "endianness",
        "padding",
        "priority",
        "mm_processor_kwargs",
        "stream",
        "prompt",
    ],
)
def test_an_embedding_takes_nothing_else(name: str) -> None:
    assert (refuse(embedding(**{name: MARKER}), Route.EMBEDDING).code) == "unknown_field"
    assert refuse(embedding(dimensions=0), Route.EMBEDDING).param == "dimensions"
    assert refuse(embedding(encoding_format="bytes"), Route.EMBEDDING).param == "encoding_format"
    assert refuse(b'{"model":"tiny"}', Route.EMBEDDING).param == "input"


@pytest.mark.parametrize("route", [Route.CHAT, Route.COMPLETION, Route.EMBEDDING])
def test_what_a_client_demands_of_its_provider_is_met_or_refused_and_never_passed_on(route: Route) -> None:
    make = {Route.CHAT: chat, Route.COMPLETION: completion, Route.EMBEDDING: embedding}[route]
    for demands in (None, {}, {"aci_verified": True}, {"aci_verified": False}):
        assert rebuilt(make(provider=demands), route) == rebuilt(make(), route)
    refusal = refuse(make(provider={"aci_verified": True, "aci_session_ids": ["s"]}), route)
    assert (refusal.status, refusal.code) == (412, "session_not_accepted")
    wrongs: list[Any] = [{"aci_more": 1}, {"order": ["x"]}, [], "x", {"aci_verified": "yes"}]
    for wrong in wrongs:
        assert refuse(make(provider=wrong), route).status == 400


def test_a_question_says_for_whom_it_is_and_whether_it_shows_probabilities() -> None:
    def read(body: bytes, route: Route = Route.CHAT) -> Question:
        return read_question(route, body, model="tiny")

    assert read(chat(user="ann")).user == "ann"
    assert [read(chat(user=other)).user for other in (None, 7, ["ann"])] == ["", "", ""]
    assert [read(chat(logprobs=given)).logprobs for given in (True, False, None)] == [True, False, False]
    assert [read(completion(logprobs=n), Route.COMPLETION).logprobs for n in (0, 5, None)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("route", "body", "sequences"),
    [
        (Route.CHAT, chat(), 1),
        (Route.CHAT, chat(n=16), 16),
        (Route.COMPLETION, completion(n=3), 3),
        (Route.COMPLETION, completion(prompt=["a"], n=3), 3),
        (Route.COMPLETION, completion(prompt=["a"] * 64, n=16), 1024),
        (Route.COMPLETION, completion(prompt=[1, 2, 3], n=2), 2),
        (Route.COMPLETION, completion(prompt=[[1, 2], [3]], n=2), 4),
        (Route.EMBEDDING, embedding(input="a"), 1),
        (Route.EMBEDDING, embedding(input=[5] * 100), 1),
        (Route.EMBEDDING, embedding(input=["a", "b", "c"]), 3),
    ],
)
def test_a_question_weighs_as_many_answers_as_it_asks_for(route: Route, body: bytes, sequences: int) -> None:
    assert read_question(route, body, model="tiny").sequences == sequences


@pytest.mark.parametrize(
    ("prompt", "tokens"), [([1] * 999, 999), ([[1] * 10, [2] * 5], 15), ("a" * 400, 100), (["a" * 400], 100)]
)
def test_tokens_are_counted_where_they_are_told_and_guessed_where_not(prompt: Any, tokens: int) -> None:
    question = read_question(Route.COMPLETION, completion(prompt=prompt), model="tiny")
    assert question.asked(b"x" * 400) == tokens


def test_passed_fields_are_the_ones_that_are_checked() -> None:
    assert {"messages", "tools", "seed"} <= passed_fields(Route.CHAT)
    assert passed_fields(Route.EMBEDDING) == {"input", "encoding_format", "dimensions"}
    for route in ASKED:
        assert not passed_fields(route) & (SET | DROPPED)
