"""Pairs of one prompt become one ranking: what is joined, what stays, which pairs are kept."""

from __future__ import annotations

from dataclasses import replace

from luthier.core.types.examples import Labelled, Message, Origin, Preference, Ranking
from luthier.data.group_preferences import group_preferences, split_preferences


def said(text, role="assistant"):
    return (Message(role, text),)


def pair(better, worse, prompt="?", line=1, margin=None):
    origin = Origin("rows.jsonl", line)
    return Preference(said(prompt, "user"), said(better), said(worse), margin=margin, origin=origin)


def texts(ranking):
    return [answer[0].content for answer in ranking.responses]


def test_pairs_of_a_prompt_become_one_ranking_with_each_answer_once():
    rows = [pair("a", "b"), pair("x", "y", "other", 2), pair("b", "c", line=3), pair("a", "c", line=4)]
    ranking, alone = group_preferences(rows)
    assert alone is rows[1]
    assert isinstance(ranking, Ranking)
    assert texts(ranking) == ["a", "b", "c"]
    assert ranking.pairs == ((0, 1), (1, 2), (0, 2))
    assert ranking.ranks == (1, 2, 3)
    assert ranking.prompt == rows[0].prompt
    assert ranking.origin == rows[0].origin, "it stands where its first pair stood"


def test_only_compared_pairs_are_kept_and_ranks_follow_comparisons_won():
    """b won twice, a and c once each and lost once, d lost twice: a and c share a rank."""
    (ranking,) = group_preferences([pair("a", "d"), pair("b", "a"), pair("b", "c"), pair("c", "d")])
    ranks = dict(zip(texts(ranking), ranking.ranks, strict=True))
    assert ranks == {"b": 1, "a": 2, "c": 2, "d": 4}
    assert len(ranking.pairs) == 4


def test_a_comparison_made_twice_counts_once_and_a_contradiction_counts_both_ways():
    (twice,) = group_preferences([pair("a", "b"), pair("a", "b")])
    assert twice.pairs == ((0, 1),)
    assert twice.ranks == (1, 2)
    (both,) = group_preferences([pair("a", "b"), pair("b", "a")])
    assert both.pairs == ((0, 1), (1, 0))
    assert both.ranks == (1, 1)


def test_an_answer_compared_with_itself_is_no_pair():
    (ranking,) = group_preferences([pair("a", "a"), pair("a", "b")])
    assert ranking.pairs == ((0, 1),)


def test_what_cannot_be_joined_stays_as_it_is():
    """Margins belong to a pair, texts without a prompt to nothing in common; other kinds of rows pass through."""
    margins = [pair("a", "b", margin=0.5), pair("a", "c", margin=0.1)]
    bare = [replace(pair("a", "b"), prompt=()), replace(pair("c", "d"), prompt=())]
    others = [
        Labelled(said("?", "user"), said("a"), True), Ranking(said("?", "user"), (said("a"), said("b")), (1, 2)), pair("a", "b"),
    ]  # fmt: skip
    rows = [*margins, *bare, *others]
    assert group_preferences(rows) == rows
    assert group_preferences([]) == []


def test_a_pair_with_a_margin_stays_beside_the_ranking_of_its_prompt():
    rows = [pair("a", "b"), pair("a", "c", margin=1.0), pair("b", "c")]
    ranking, stays = group_preferences(rows)
    assert stays is rows[1]
    assert ranking.pairs == ((0, 1), (1, 2))


def test_prompts_that_differ_in_any_way_are_kept_apart():
    """A system prompt, or an input field, makes another prompt of the same question."""
    system = replace(pair("a", "b"), prompt=(Message("system", "be brief"), *said("?", "user")))
    given = replace(pair("a", "b"), prompt=(Message("user", "?", input="x"),))
    rows = [pair("a", "b"), system, given]
    assert group_preferences(rows) == rows


def test_the_group_that_a_split_keeps_together_goes_on():
    rows = [replace(pair("a", "b"), group="g"), replace(pair("b", "c"), group="g")]
    assert group_preferences(rows)[0].group == "g"


def test_pairs_taken_apart_are_a_wanted_and_an_unwanted_answer():
    alone = Labelled(said("?", "user"), said("c"), False)
    first, second, third = split_preferences([replace(pair("a", "b", line=7), group="g"), alone])
    assert (first.completion, first.label) == (said("a"), True)
    assert (second.completion, second.label) == (said("b"), False)
    assert first.prompt == second.prompt == said("?", "user")
    assert (first.origin.line, first.group) == (second.origin.line, second.group) == (7, "g")
    assert third is alone
