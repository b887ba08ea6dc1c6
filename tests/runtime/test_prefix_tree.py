"""Continuations of one prompt as a tree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.prefix_tree import ROOT, groups, prefix_tree

CONTINUATIONS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), min_size=1, max_size=8)


def test_common_beginnings_are_there_once() -> None:
    tree = prefix_tree([(1, 2, 9), (1, 3, 9), (4, 9)])
    assert tree.tokens == (1, 2, 3, 4)
    assert tree.parents == (ROOT, 0, 0, ROOT)
    assert tree.depths == (0, 1, 1, 0)
    assert tree.paths == ((ROOT, 0, 1), (ROOT, 0, 2), (ROOT, 3))


def test_a_single_token_needs_no_node() -> None:
    assert prefix_tree([(5,), (6,)]).tokens == ()


@given(CONTINUATIONS)
def test_each_path_reads_its_continuation(continuations: list[tuple[int, ...]]) -> None:
    tree = prefix_tree(continuations)
    for continuation, path in zip(continuations, tree.paths):
        assert path[0] == ROOT
        assert tuple(tree.tokens[node] for node in path[1:]) == continuation[:-1]
        above = list(tree.ancestors(path[-1]))
        assert above == list(reversed(path[1:]))
    assert all(parent < node for node, parent in enumerate(tree.parents))


@given(CONTINUATIONS, st.integers(1, 6))
def test_groups_keep_the_order_and_the_bound(continuations: list[tuple[int, ...]], most: int) -> None:
    found = list(groups(continuations, most))
    assert [continuation for group in found for continuation in group] == continuations
    assert all(len(group) == 1 or len(prefix_tree(group).tokens) <= most for group in found)
