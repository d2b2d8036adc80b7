"""Mirrors sidecars/proxy/tenants/places.py."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from sidecars.proxy.tenants.places import Places, Waiting


def noted(woken: list[str], name: str) -> Callable[[], None]:
    return lambda: woken.append(name)


class Crowd:
    """Places, and who was woken in which order."""

    def __init__(self, *, most: int = 4, length: int = 8, lengths: int = 100, each: int = 4) -> None:
        self.places = Places(most=most, length=length, lengths=lengths)
        self.each = each
        self.woken: list[str] = []

    def ask(self, name: str) -> Waiting | None:
        if self.places.take(name, self.each):
            return None
        return self.places.join(name, self.each, noted(self.woken, name))


def test_places_are_bounded_for_each_and_for_all() -> None:
    crowd = Crowd(most=3, each=2)
    assert [crowd.places.take(name, 2) for name in "aaab"] == [True, True, False, True]
    assert not crowd.places.take("c", 2)
    crowd.places.leave("a")
    assert crowd.places.take("c", 2)
    assert crowd.places.taken == 3 and crowd.places.inside("a") == 1


def test_lines_are_bounded_for_each_and_for_all() -> None:
    crowd = Crowd(most=1, length=2, lengths=3)
    assert crowd.places.take("z", 1)
    asked = [crowd.ask(name) for name in "aaabb"]
    assert [waiting is not None for waiting in asked] == [True, True, False, True, False]
    assert crowd.places.waiting == 3


def test_lines_take_turns_so_that_a_long_one_waits_for_itself() -> None:
    crowd = Crowd(most=1)
    crowd.ask("a")
    for name in "aaaabc":
        crowd.ask(name)
    for name in "aabcaa":
        crowd.places.leave(name)
    assert crowd.woken == ["a", "b", "c", "a", "a", "a"]
    assert crowd.places.waiting == 0 and crowd.places.taken == 1


def test_a_tenant_at_its_own_limit_is_passed_over() -> None:
    crowd = Crowd(most=3, each=2)
    for name in "aab":
        crowd.ask(name)
    for name in "ac":
        crowd.ask(name)
    crowd.places.leave("b")
    assert crowd.woken == ["c"]
    crowd.places.leave("a")
    assert crowd.woken == ["c", "a"]


def test_one_that_waits_for_its_own_limit_keeps_no_place_empty() -> None:
    crowd = Crowd(most=4, each=1)
    crowd.ask("a")
    assert crowd.ask("a") is not None
    assert crowd.ask("b") is None


def test_who_gives_up_is_not_woken_and_a_place_just_given_goes_on() -> None:
    crowd = Crowd(most=1)
    crowd.ask("a")
    first, second, third = crowd.ask("b"), crowd.ask("c"), crowd.ask("d")
    assert first and second and third
    crowd.places.give_up(second)
    crowd.places.leave("a")
    assert crowd.woken == ["b"] and first.placed
    crowd.places.give_up(first)
    assert crowd.woken == ["b", "d"]
    crowd.places.give_up(second)  # again: nothing changes
    crowd.places.leave("d")
    assert (crowd.places.taken, crowd.places.waiting) == (0, 0)


def test_a_request_takes_as_many_places_as_it_asks_for_answers() -> None:
    places = Places(most=8, length=0, lengths=0)
    assert places.take("a", 4, 3) and not places.take("a", 4, 2) and places.take("a", 4, 1)
    assert places.take("b", 8, 4) and not places.take("c", 1)
    places.leave("a", 3)
    assert (places.taken, places.inside("a"), places.inside("b")) == (5, 1, 4)
    assert not places.take("c", 8, 4) and places.take("c", 8, 3)


def test_what_gets_free_is_saved_for_who_needs_more_of_it() -> None:
    woken: list[str] = []
    places = Places(most=4, length=4, lengths=9)
    for name in "abcd":
        assert places.take(name, 4)
    assert places.join("e", 4, noted(woken, "e"), 3)
    assert places.join("a", 4, noted(woken, "a"))
    assert places.join("f", 4, noted(woken, "f"))
    places.leave("a")
    assert woken == ["f"] or woken == ["a"]  # one that has none may, whatever is saved
    woken.clear()
    places.leave("b")
    assert woken == ["f"]
    places.leave("c")
    assert not places.take("d", 4)  # it has one: the free one is saved
    places.leave("d")
    places.leave("f")
    assert woken == ["f", "e"] and places.taken == 4


def test_what_was_saved_goes_on_when_who_waited_for_it_gives_up() -> None:
    woken: list[str] = []
    places = Places(most=3, length=4, lengths=9)
    assert places.take("a", 3, 2)
    heavy = places.join("b", 3, noted(woken, "b"), 2)
    assert heavy and not places.take("a", 3)
    assert places.join("a", 3, noted(woken, "a"))
    places.give_up(heavy)
    assert woken == ["a"] and places.taken == 3


def test_who_stands_in_line_is_not_overtaken_by_its_own_smaller_requests() -> None:
    places = Places(most=4, length=4, lengths=9)
    assert places.take("a", 3, 2)
    assert places.join("a", 3, lambda: None, 2)
    assert not places.take("a", 3, 1)
    assert places.take("b", 3, 2)


def test_the_last_place_is_for_who_has_none() -> None:
    places = Places(most=4, length=4, lengths=9, tenants=4)
    assert places.largest == 3
    assert [places.take("a", 9) for _ in range(4)] == [True, True, True, False]
    assert places.take("b", 9) and not places.take("c", 9)
    places.leave("a")
    assert not places.take("a", 9) and not places.take("b", 9) and not places.take("c", 9, 2)
    assert places.take("c", 9)


def test_nothing_is_kept_once_everybody_has_some() -> None:
    places = Places(most=3, length=4, lengths=9, tenants=2)
    assert places.take("a", 9) and places.take("b", 9) and places.take("a", 9)
    places.leave("b")
    assert not places.take("a", 9) and places.take("b", 9)


def test_the_last_place_is_given_from_the_line_to_who_has_none() -> None:
    crowd = Crowd(most=3, each=9)
    crowd.places = Places(most=3, length=4, lengths=9, tenants=4)
    for name in "aabac":
        crowd.ask(name)
    assert crowd.places.waiting == 2
    crowd.places.leave("b")
    assert crowd.woken == ["c"]
    crowd.places.leave("a")
    assert crowd.woken == ["c"]
    crowd.places.leave("a")
    assert crowd.woken == ["c", "a"]


def test_one_place_is_for_everybody() -> None:
    places = Places(most=1, length=0, lengths=0, tenants=2)
    assert places.largest == 1
    assert places.take("a", 9) and not places.take("b", 9)
    places.leave("a")
    assert places.take("b", 9)


@pytest.mark.parametrize("seed", range(40))
def test_no_order_of_events_loses_a_place_or_leaves_one_empty(seed: int) -> None:
    chance, names = random.Random(seed), "abcde"
    tenants = len(names) if seed % 2 else 1
    most, each, length = chance.randint(1, 6), chance.randint(1, 4), chance.randint(0, 4)
    places = Places(most=most, length=length, lengths=10, tenants=tenants)
    heaviest = min(each, places.largest, 1 + seed // 2 % 3)
    inside, lines, held = Counter[str](), list[Waiting](), list[tuple[str, int]]()
    for _ in range(2000):
        name, weight = chance.choice(names), chance.randint(1, heaviest)
        match chance.randrange(3):
            case 0 if places.take(name, each, weight):
                held.append((name, weight))
            case 0 if waiting := places.join(name, each, lambda: None, weight):
                lines.append(waiting)
            case 1 if held:
                places.leave(*held.pop(chance.randrange(len(held))))
            case 2 if lines:
                places.give_up(lines.pop(chance.randrange(len(lines))))
        for waiting in [waiting for waiting in lines if waiting.placed]:
            lines.remove(waiting)
            held.append((waiting.name, waiting.weight))
        inside.clear()
        for who, weight in held:
            inside[who] += weight
        assert places.taken == inside.total() <= most and places.waiting == len(lines) <= 10
        assert all(places.inside(n) == inside[n] <= each for n in names)
        if heaviest == 1:
            kept = len(+inside) < tenants
            blocked = [
                inside[w.name] == each or (inside[w.name] and places.taken >= most - kept) for w in lines
            ]
            assert places.taken == most or all(blocked)
        elif not held:
            assert not lines  # whoever waits, waits for somebody
