"""Rules 12 to 15 in plain Python, one token at a time.

Written from the words of the rules alone; imports nothing of the planner.
"""

import hashlib
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from math import floor


def homes(policy, sequence_of_row, rank_of_row, ranks, tag_of_row=()):
    """DP rank of every row of the file (rule 12)."""
    rows = range(len(sequence_of_row))
    if policy == "trace" and all(rank is not None for rank in rank_of_row):
        return list(rank_of_row)
    if policy in ("trace", "by_token"):
        return [i % ranks for i in rows]
    ids = sorted(set(sequence_of_row))
    if policy == "round_robin":
        place = {}
        for i, name in enumerate(ids):
            place[name] = i % ranks
        return [place[name] for name in sequence_of_row]
    tokens = Counter(sequence_of_row)
    if policy == "by_tag":
        return _homes_by_tag(sequence_of_row, tag_of_row, tokens, ranks)
    held = [0] * ranks
    place = {}
    for name in sorted(ids, key=lambda name: (-tokens[name], name)):
        fewest = min(held)
        rank = held.index(fewest)
        place[name] = rank
        held[rank] += tokens[name]
    return [place[name] for name in sequence_of_row]


def _homes_by_tag(sequence_of_row, tag_of_row, tokens, ranks):
    tag_of = {}
    for name, tag in zip(sequence_of_row, tag_of_row, strict=True):
        tag_of.setdefault(name, tag)
    place = {}
    before = 0
    for tag in sorted(set(tag_of.values()), key=lambda tag: (tag is not None, tag)):
        members = sorted(name for name in tag_of if tag_of[name] == tag)
        own = sum(tokens[name] for name in members)
        start = floor(Fraction(ranks * before, len(sequence_of_row)))
        end = floor(Fraction(ranks * (before + own), len(sequence_of_row)))
        width = max(start + 1, end) - start
        for i, name in enumerate(members):
            place[name] = start + i % width
        before += own
    return [place[name] for name in sequence_of_row]


def sources(rank_of_row, groups):
    """GPU every row leaves from (rule 13)."""
    seen = Counter()
    gpus = []
    for rank in rank_of_row:
        group = groups[rank]
        gpus.append(group[seen[rank] % len(group)])
        seen[rank] += 1
    return gpus


def held_out(sequence_of_row, tag_of_row, text):
    """Whether every row of the file is held out (rule 14)."""
    share, _, salt = text.partition(":")
    tag_of = {}
    for name, tag in zip(sequence_of_row, tag_of_row, strict=True):
        tag_of.setdefault(name, tag)
    chosen = set()
    for tag in set(tag_of.values()):
        members = [name for name in tag_of if tag_of[name] == tag]
        members.sort(
            key=lambda name: hashlib.sha256(
                f"holdout{salt}:{name}".encode()
            ).hexdigest()
        )
        n = len(members)
        wanted = floor(Fraction(Decimal(share)) * n + Fraction(1, 2))
        chosen.update(members[: max(0, min(n - 1, wanted))])
    return [name in chosen for name in sequence_of_row]


def ordinals(source_of_token):
    """Place of every token among those of its source GPU (rule 15)."""
    return [
        source_of_token[:i].count(source_of_token[i])
        for i in range(len(source_of_token))
    ]


def demand(rows_of_layers, source_of_token, experts, gpus):
    """Pairs by layer, source GPU and expert; None is no message (rule 11)."""
    table = [[[0] * experts for _ in range(gpus)] for _ in rows_of_layers]
    for layer, rows in enumerate(rows_of_layers):
        for source, row in zip(source_of_token, rows, strict=True):
            for expert in row:
                if expert is not None:
                    table[layer][source][expert] += 1
    return table


def distinct_sets(rows, source_of_token):
    """How many tokens share a (source GPU, sorted experts) of one layer."""
    found = Counter()
    for source, row in zip(source_of_token, rows, strict=True):
        known = tuple(sorted(expert for expert in row if expert is not None))
        if known:
            found[source, known] += 1
    return dict(found)
