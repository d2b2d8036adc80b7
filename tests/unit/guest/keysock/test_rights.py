"""Mirrors guest/keysock/rights.py: what a rule gives, what nobody gets, and that a refusal names the missing rule."""

import pytest

from guest.keysock.rights import DEFAULT, Caller, Method, Rights, Rule
from strongroom.errors import FormatError, PolicyError

A, B = Caller(uid=0, unit="a.service"), Caller(uid=0, unit="b.service")
USER = Caller(uid=1000)
RIGHTS = Rights(
    units={
        "a.service": Rule(methods=frozenset({Method.GET_KEY, Method.SIGN}), paths=("db/", "one"), sign=("*",))
    },
    uids={0: Rule(methods=frozenset(Method), paths=("*",), sign=("*",), raw_quote=True)},
)


@pytest.mark.parametrize("path", ["a.service/", "a.service/x", "db/", "db/x/y", "one"])
def test_a_unit_has_its_paths_and_its_own(path: str) -> None:
    RIGHTS.of(A).require_path(path)


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize(
    "path", ["", "db", "dbx", "one/", "ones", "b.service/x", "a.service", "*", "a.services/x"]
)
def test_and_no_other(path: str) -> None:
    with pytest.raises(PolicyError, match=r"a\.service: no rule has path"):
        RIGHTS.of(A).require_path(path)


@pytest.mark.guarantee("G20")
def test_a_unit_without_a_rule_has_its_own_name_alone() -> None:
    granted = RIGHTS.of(B)
    granted.require_path("b.service/key")
    for path in ("db/x", "a.service/key", "uid-0/key", ""):
        with pytest.raises(
            PolicyError, match=r"b\.service: no rule has path .* with unit: b\.service, paths: \["
        ):
            granted.require_path(path)
    for method in set(Method) - {Method.INFO, Method.VERSION, *DEFAULT}:
        with pytest.raises(
            PolicyError, match=rf"no rule may call {method}, want one .* methods: \[{method}\]"
        ):
            granted.require(method)


def test_a_uid_counts_where_there_is_no_unit() -> None:
    RIGHTS.of(Caller(uid=0)).require_path("anything")
    RIGHTS.of(USER).require_path("uid-1000/x")
    with pytest.raises(PolicyError, match="with uid: 1000, paths"):
        RIGHTS.of(USER).require_path("uid-0/x")
    with pytest.raises(PolicyError):  # the rule of its uid is none of a unit's business
        RIGHTS.of(B).require_path("anything")


def test_others_may_be_left_without_a_key() -> None:
    granted = Rights(others=False).of(B)
    granted.require(Method.INFO)
    with pytest.raises(PolicyError, match="no rule may call GetKey"):
        granted.require_path("b.service/x")


def test_methods_that_are_named_are_all_there_are() -> None:
    quotes = Rights(units={"a.service": Rule(methods=frozenset({Method.GET_QUOTE}))}).of(A)
    quotes.require(Method.GET_QUOTE)
    quotes.require(Method.VERSION)
    with pytest.raises(PolicyError):
        quotes.require_path("a.service/x")


def test_raw_quote_is_refused_by_name() -> None:
    with pytest.raises(PolicyError, match=r"no rule has raw_quote \(why\), want one .* raw_quote: true"):
        RIGHTS.of(A).require_raw("why")
    RIGHTS.of(Caller(uid=0)).require_raw("why")
    assert RIGHTS.raw_quote and not Rights().raw_quote


def test_rights_survive_their_json() -> None:
    assert Rights.from_json(RIGHTS.to_json()) == RIGHTS
    for value in (None, {}, {"units": {"a": {}}, "uids": {}, "others": True}):
        with pytest.raises(FormatError):
            Rights.from_json(value)  # type: ignore[arg-type]
