"""Several continuations of one prompt as a tree: what they begin with in common is there once. Knows tokens only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Tokens = Sequence[int]

ROOT = -1
"""The parent of a first token: the prompt itself."""


@dataclass(frozen=True)
class PrefixTree:
    """The tokens that some continuations are read through, but for each one's last.

    Attributes:
        tokens: a token for each node; parents stand before their children.
        parents: each node's parent, or ROOT.
        paths: for each continuation, the node (or ROOT) after which each of its tokens would be chosen.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    @property
    def depths(self) -> tuple[int, ...]:
        """How many nodes stand above each node."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent == ROOT else depths[parent] + 1)
        return tuple(depths)

    def ancestors(self, node: int) -> Iterator[int]:
        """The nodes from `node` itself up to its first."""
        while node != ROOT:
            yield node
            node = self.parents[node]


def prefix_tree(continuations: Sequence[Tokens]) -> PrefixTree:
    """The tree of these continuations, each of one token or more."""
    nodes: dict[tuple[int, int], int] = {}
    paths = []
    for continuation in continuations:
        path = [ROOT]
        for token in continuation[:-1]:
            path.append(nodes.setdefault((path[-1], token), len(nodes)))
        paths.append(tuple(path))
    return PrefixTree(tuple(token for _, token in nodes), tuple(parent for parent, _ in nodes), tuple(paths))


def groups(continuations: Sequence[Tokens], most: int) -> Iterator[Sequence[Tokens]]:
    """The continuations in order, in groups whose trees have at most `most` nodes, or which hold a single one."""
    start, known = 0, set[Tokens]()
    for end, continuation in enumerate(continuations):
        prefixes = {tuple(continuation[:length]) for length in range(1, len(continuation))}
        if end > start and len(known | prefixes) > most:
            yield continuations[start:end]
            start, known = end, set()
        known |= prefixes
    yield continuations[start:]
