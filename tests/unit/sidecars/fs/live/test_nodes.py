"""The inode table, and the gate."""

import errno
import stat
import threading

import pytest

from sidecars.fs.live.gate import Gate
from sidecars.fs.live.nodes import ROOT_ID, Node, Nodes


def file(ino: int, links: int = 1, kind: int = stat.S_IFREG) -> dict[str, int]:
    return {"st_mode": kind | 0o644, "st_ino": ino, "st_dev": 1, "st_nlink": links}


def directory(ino: int) -> dict[str, int]:
    return file(ino, 2, stat.S_IFDIR)


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture
def root(nodes: Nodes) -> Node:
    return nodes.node(ROOT_ID)


def test_paths(nodes: Nodes, root: Node) -> None:
    d = nodes.found(root, "d", directory(2))
    f = nodes.found(d, "f", file(3))
    assert [nodes.path(node) for node in (root, d, f)] == ["/", "/d", "/d/f"]
    assert nodes.below(root, "x") == "/x"
    assert nodes.below(d, "x") == "/d/x"
    assert nodes.node(f.id) is f


def test_what_was_never_given_out_is_stale(nodes: Nodes) -> None:
    with pytest.raises(OSError, match=f"Errno {errno.ESTALE}"):
        nodes.node(2)


def test_forgotten_nodes_go_with_what_only_they_kept(nodes: Nodes, root: Node) -> None:
    d = nodes.found(root, "d", directory(2))
    f = nodes.found(d, "f", file(3))
    nodes.found(d, "f", file(3))
    nodes.forget([(d.id, 1)])
    assert nodes.path(f) == "/d/f"
    nodes.forget([(f.id, 1)])
    assert len(nodes) == 3
    nodes.forget([(f.id, 1), (99, 1), (ROOT_ID, 1)])
    assert len(nodes) == 1
    assert root.children == {}


def test_a_renamed_directory_takes_its_files_along(nodes: Nodes, root: Node) -> None:
    d, e = nodes.found(root, "d", directory(2)), nodes.found(root, "e", directory(4))
    f = nodes.found(d, "f", file(3))
    nodes.moved(root, "d", e, "x", exchanged=False)
    assert nodes.path(f) == "/e/x/f"


def test_names_exchanged(nodes: Nodes, root: Node) -> None:
    a, b = nodes.found(root, "a", file(2)), nodes.found(root, "b", file(3))
    nodes.moved(root, "a", root, "b", exchanged=True)
    assert (nodes.path(a), nodes.path(b)) == ("/b", "/a")
    nodes.moved(root, "a", root, "unknown", exchanged=True)
    assert nodes.path(b) == "/unknown"


def test_a_replaced_file_stays_without_a_name(nodes: Nodes, root: Node) -> None:
    a, b = nodes.found(root, "a", file(2)), nodes.found(root, "b", file(3))
    nodes.opened(b, 7)
    nodes.moved(root, "a", root, "b", exchanged=False)
    assert nodes.path(a) == "/b"
    assert nodes.path(b) is None
    assert nodes.node(b.id).handle == 7
    with pytest.raises(FileNotFoundError):
        nodes.below(b, "x")
    nodes.closed(b.id, 7)
    nodes.forget([(b.id, 1)])
    assert len(nodes) == 2


def test_links_are_one_node(nodes: Nodes, root: Node) -> None:
    first = nodes.found(root, "a", file(2, links=2))
    assert nodes.found(root, "b", file(2, links=2)) is first
    nodes.removed(root, "a")
    assert nodes.path(first) == "/b"
    nodes.removed(root, "b")
    assert nodes.path(first) is None


def test_an_inode_number_used_again_is_another_file(nodes: Nodes, root: Node) -> None:
    first = nodes.found(root, "a", file(2))
    nodes.removed(root, "a")
    second = nodes.found(root, "b", file(2))
    assert second is not first
    assert nodes.path(first) is None


def test_what_was_exchanged_behind_our_back_is_another_file(nodes: Nodes, root: Node) -> None:
    first = nodes.found(root, "a", file(2))
    assert nodes.found(root, "a", file(3)) is not first
    d = nodes.found(root, "d", directory(4))
    assert (
        nodes.found(root, "e", directory(4)) is not d
    )  # moved: what the kernel holds of it stays where it was


def test_files_without_inode_numbers_are_all_different(nodes: Nodes, root: Node) -> None:
    assert nodes.found(root, "a", file(0)) is not nodes.found(root, "b", file(0))


def test_the_gate_lets_many_in_and_one_alone() -> None:
    gate, inside, alone = Gate(), threading.Barrier(3), list[int]()

    def enter() -> None:
        with gate:
            inside.wait(5)

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def change() -> None:
        with gate.alone:
            alone.append(len(alone))

    with gate:
        threads = [threading.Thread(target=change) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert alone == []
    for thread in threads:
        thread.join()
    assert alone == [0, 1, 2]
    with gate:
        pass
