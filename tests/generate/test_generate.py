"""Generation equals transformers' own where it is deterministic, and the distribution asked for where it is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from luthier.core.errors import InputError, RunError
from luthier.generate import engine as engine_module
from luthier.generate.engine import Engine
from luthier.generate.generate import Pace, generate, stream
from luthier.generate.request import Request
from luthier.generate.sampling import Sampling, Text, draw, keep, pick, random_numbers
from luthier.model.layers.attention import register
from luthier.model.layers.scoring import Scoring
from sentences import sentence

register()

VOCABULARY = 97
PROMPTS = [[5, 9, 2], [7], list(range(1, 41)), [3, 3, 3, 8, 1], [60, 61]]


def tiny(dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """A random decoder of two layers that attends through Luthier; weights large enough to be opinionated."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    kind = MistralForCausalLM if "sliding_window" in options else LlamaForCausalLM
    config = (MistralConfig if "sliding_window" in options else LlamaConfig)(**shape | options)
    config._attn_implementation = "luthier"
    return kind(config).to(dtype).eval()


def plain(model: Any) -> Any:
    """The same weights in the hands of transformers alone."""
    config = type(model.config)(**model.config.to_dict())
    config._attn_implementation = "sdpa"
    twin = type(model)(config).to(next(model.parameters()).dtype).eval()
    twin.load_state_dict(model.state_dict())
    return twin


def decode(ids: Sequence[int]) -> str:
    return "".join(f"<{i}>" for i in ids)


def logp(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """log p of an answer by one forward pass of transformers over the whole text."""
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        table: torch.Tensor = plain(model)(input_ids=ids).logits[0].log_softmax(-1)
    return table[len(prompt) - 1 : -1].gather(-1, ids[0, len(prompt) :, None])[:, 0]


def reference(model: Any, prompt: Sequence[int], **options: Any) -> list[int]:
    out = plain(model).generate(torch.tensor([list(prompt)]), do_sample=False, **options)
    return [int(token) for token in out[0, len(prompt) :]]


@pytest.mark.medium
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_greedy_is_that_of_transformers_and_logp_that_of_a_forward(dtype: torch.dtype, batch: int) -> None:
    model = tiny(dtype)
    samples = generate(model, PROMPTS, Sampling(max_new_tokens=20), decode, batch=batch)
    assert [s.prompt for s in samples] == list(range(len(PROMPTS)))
    for prompt, sample in zip(PROMPTS, samples, strict=True):
        assert list(sample.ids) == reference(model, prompt, max_new_tokens=20)
        assert sample.ended == "length"
        assert sample.text == decode(sample.ids)
        expected = logp(model, prompt, sample.ids)
        torch.testing.assert_close(torch.tensor(sample.logp, dtype=dtype), expected, atol=1e-5, rtol=0)


@pytest.mark.medium
def test_answers_outgrow_the_first_buffers() -> None:
    model = tiny()
    samples = generate(model, PROMPTS[:2], Sampling(max_new_tokens=100), decode)
    assert [list(s.ids) for s in samples] == [reference(model, prompt, max_new_tokens=100) for prompt in PROMPTS[:2]]


@pytest.mark.parametrize("limit", [3, 7, 1024])
def test_prompts_read_in_pieces_are_read_the_same(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    model = tiny()
    monkeypatch.setattr(engine_module, "PASS", limit)
    samples = generate(model, PROMPTS, Sampling(max_new_tokens=12), decode, batch=2)
    for prompt, sample in zip(PROMPTS, samples, strict=True):
        assert list(sample.ids) == reference(model, prompt, max_new_tokens=12)


@pytest.mark.medium
def test_other_families_generate_as_they_do_in_transformers() -> None:
    """Learned positions (GPT-2), norms of q and k (Qwen3), windows in some layers only (Gemma 3), scaled logits (Granite)."""
    torch.manual_seed(0)
    own = {"bos_token_id": None, "eos_token_id": None, "initializer_range": 0.3}
    shape = own | {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
    }  # fmt: skip
    layers = ["sliding_attention", "full_attention"]
    for kind, config in (
        (GPT2LMHeadModel, GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, **own)),
        (Qwen3ForCausalLM, Qwen3Config(**shape, head_dim=16)),
        (Gemma3ForCausalLM, Gemma3TextConfig(**shape, head_dim=16, sliding_window=6, layer_types=layers)),
        (GraniteForCausalLM, GraniteConfig(**shape, logits_scaling=2.0, attention_multiplier=0.3)),
    ):
        config._attn_implementation = "luthier"
        model = kind(config).eval()
        for sample in generate(model, PROMPTS, Sampling(max_new_tokens=12), decode, batch=3):
            expected = logp(model, PROMPTS[sample.prompt], sample.ids)
            torch.testing.assert_close(torch.tensor(sample.logp), expected, atol=5e-5, rtol=0, msg=kind.__name__)


@pytest.mark.parametrize("piece", [5, 1024])
def test_sliding_windows_are_kept(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    model = tiny(sliding_window=6)
    monkeypatch.setattr(engine_module, "PASS", piece)
    samples = generate(model, PROMPTS, Sampling(max_new_tokens=20), decode, batch=3)
    for prompt, sample in zip(PROMPTS, samples, strict=True):
        expected = logp(model, prompt, sample.ids)
        torch.testing.assert_close(torch.tensor(sample.logp, dtype=torch.float64), expected, atol=1e-9, rtol=0)
    wide = generate(tiny(sliding_window=1000), PROMPTS, Sampling(max_new_tokens=20), decode, batch=3)
    assert [s.ids for s in wide] != [s.ids for s in samples], "the window must matter in this test"


@pytest.mark.medium
def test_samples_do_not_depend_on_the_batch() -> None:
    model = tiny()
    sampling = Sampling(temperature=0.9, top_p=0.95, top_k=40, min_p=0.01, max_new_tokens=15, stop_ids=(4, 11), n=3)
    by_batch = [generate(model, PROMPTS, sampling, decode, batch=batch) for batch in (1, 3, 64)]
    ids = [[(s.prompt, s.ids, s.ended) for s in samples] for samples in by_batch]
    assert ids[0] == ids[1] == ids[2]
    assert len({s.ids for s in by_batch[0]}) > len(PROMPTS), "samples of one prompt differ"
    assert {s.ended for s in by_batch[0]} == {"stop", "length"}, "rows must end at different times"
    other = generate(model, PROMPTS, dataclasses.replace(sampling, seed=1), decode, batch=3)
    assert [s.ids for s in other] != [s.ids for s in by_batch[0]]
    for sample in by_batch[1]:
        expected = logp(model, PROMPTS[sample.prompt], sample.ids)
        torch.testing.assert_close(torch.tensor(sample.logp, dtype=torch.float64), expected, atol=1e-9, rtol=0)


def test_one_prompt_gives_the_same_samples_among_others() -> None:
    model = tiny()
    sampling = Sampling(temperature=1.0, max_new_tokens=10, n=2)
    alone = generate(model, PROMPTS[:1], sampling, decode)
    among = generate(model, PROMPTS, sampling, decode)[:2]
    assert [s.ids for s in alone] == [s.ids for s in among]
    assert alone[0].logp == pytest.approx(among[0].logp, abs=1e-9)


def count_tokens(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of every pass from now on."""
    passes: list[int] = []
    part = model.get_decoder()
    forward = part.forward

    def counted(**inputs: Any) -> Any:
        passes.append(inputs["input_ids"].numel())
        return forward(**inputs)

    monkeypatch.setattr(part, "forward", counted)
    return passes


def test_the_samples_of_a_prompt_share_its_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    passes = count_tokens(model, monkeypatch)
    generate(model, PROMPTS[2:3], Sampling(temperature=1.0, max_new_tokens=3, n=8), decode, batch=8)
    assert passes == [40, 8, 8]  # the last tokens are never read


def test_ended_sequences_leave_and_waiting_prompts_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    passes = count_tokens(model, monkeypatch)
    generate(model, [[1], [2], [3]], Sampling(max_new_tokens=4), decode, batch=2)
    assert passes == [2, 2, 2, 2, 1, 1, 1, 1]
    passes.clear()
    sampling = Sampling(temperature=1.0, max_new_tokens=30, n=6, stop_ids=tuple(range(0, VOCABULARY, 9)))
    samples = generate(model, [[1]], sampling, decode)
    lengths = [len(s.ids) for s in samples]
    assert passes == [1] + [sum(length > step for length in lengths) for step in range(1, max(lengths))]


def test_a_common_beginning_is_read_once_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    system = list(range(30, 60))
    prompts = [[*system, *prompt] for prompt in PROMPTS]
    sampling = Sampling(temperature=0.8, max_new_tokens=8, n=2)
    passes = count_tokens(model, monkeypatch)
    shared = generate(model, prompts, sampling, decode)
    assert passes[:2] == [30, sum(map(len, PROMPTS))]
    monkeypatch.setattr(engine_module, "SHARED", 1000)
    apart = generate(model, prompts, sampling, decode)
    assert [s.ids for s in shared] == [s.ids for s in apart]
    for a, b in zip(shared, apart, strict=True):
        assert a.logp == pytest.approx(b.logp, abs=1e-9)


def test_equal_prompts_share_all_but_their_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    passes = count_tokens(model, monkeypatch)
    generate(model, [PROMPTS[2], PROMPTS[2]], Sampling(max_new_tokens=1), decode)
    assert passes == [39, 2]


def test_stop_ids_end_a_sample_and_are_kept_out_of_the_text() -> None:
    model = tiny()
    (full,) = generate(model, PROMPTS[:1], Sampling(max_new_tokens=20), decode)
    stop = full.ids[6]
    first = full.ids.index(stop)
    (sample,) = generate(model, PROMPTS[:1], Sampling(max_new_tokens=20, stop_ids=(stop,)), decode)
    assert sample.ids == full.ids[: first + 1]
    assert sample.logp == pytest.approx(full.logp[: first + 1])
    assert (sample.text, sample.ended) == (decode(full.ids[:first]), "stop")


def test_stop_strings_end_a_sample_and_never_leak() -> None:
    model = tiny()
    (full,) = generate(model, PROMPTS[:1], Sampling(max_new_tokens=20), decode)
    inside = decode(full.ids[3:5])[1:-1]  # begins and ends within tokens
    sampling = Sampling(max_new_tokens=20, stop=(inside, "never"))
    (sample,) = generate(model, PROMPTS[:1], sampling, decode)
    whole = decode(full.ids)
    assert sample.ended == "stop_string"
    assert sample.text == whole[: whole.index(inside)]
    assert whole.index(inside) + len(inside) <= len(decode(sample.ids))
    pieces = list(stream(model, PROMPTS[0], sampling, decode))
    assert "".join(pieces) == sample.text
    assert all(pieces)


def bytewise(ids: Sequence[int]) -> str:
    """A decoder of half bytes: two tokens make a byte, up to eight a character."""
    pairs = zip(ids[::2], ids[1::2], strict=False)
    data = bytes((high % 16) * 16 + low % 16 for high, low in pairs)
    return data.decode("utf-8", "replace") + ("�" if len(ids) % 2 else "")


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.sampled_from("ab€😀") | st.characters(exclude_characters="�", codec="utf-8"), max_size=20),
    st.lists(st.text("ab€😀", min_size=1, max_size=3), max_size=2),
)
@pytest.mark.medium
def test_text_comes_in_whole_characters_and_stops_where_find_does(text: str, stop: list[str]) -> None:
    ids = [half for byte in text.encode() for half in (byte >> 4, byte & 15)]
    tracker = Text(bytewise, tuple(stop))
    shown = ""
    places = [text.find(s) for s in stop if s in text]
    expected = text[: min(places)] if places else text
    for token in ids:
        tracker.add(token)
        if tracker.stopped:
            break
        assert tracker.text.startswith(shown)
        shown = tracker.text[: tracker.safe]
        assert text.startswith(shown)
        assert expected.startswith(shown), "part of a stop string leaked"
    assert tracker.stopped == bool(places)
    # of two stop strings the one that is complete first ends the text, though the other may begin before it
    assert tracker.text == expected or (len(stop) == 2 and tracker.text.startswith(expected))


def test_a_character_cut_in_half_is_left_out() -> None:
    model = tiny()
    (sample,) = generate(model, PROMPTS[:1], Sampling(max_new_tokens=3), lambda ids: "ok" + "�" * (len(ids) > 2))
    assert sample.text == "ok"


def test_stream_joins_to_the_text() -> None:
    model = tiny()
    sampling = Sampling(temperature=1.0, max_new_tokens=25, seed=3)
    pieces = list(stream(model, PROMPTS[0], sampling, decode))
    (sample,) = generate(model, PROMPTS[:1], sampling, decode)
    assert "".join(pieces) == sample.text
    assert len(pieces) == 25


def test_cancel_returns_what_has_ended_and_progress_counts() -> None:
    model = tiny()
    told: list[Pace] = []
    samples = generate(
        model, PROMPTS, Sampling(max_new_tokens=4), decode,
        batch=2, progress=told.append, cancelled=lambda: told[-1].made >= 10,
    )  # fmt: skip
    assert [s.prompt for s in samples] == [0, 1]
    assert (told[-1].made, told[-1].ended, told[-1].total) == (10, 2, len(PROMPTS))


@pytest.mark.parametrize(("batch", "n"), [(1, 1), (2, 1), (3, 2), (64, 1)])
def test_it_stops_when_all_have_ended_and_never_takes_more_steps_than_it_said(batch: int, n: int) -> None:
    """Answers that end early make place for others, and no step is taken for those that have ended."""
    model = tiny()
    free = generate(model, PROMPTS, Sampling(max_new_tokens=30), decode)
    stop = {sample.ids[3 + place] for place, sample in enumerate(free)}
    told: list[Pace] = []
    sampling = Sampling(max_new_tokens=30, n=n, stop_ids=tuple(stop))
    samples = generate(model, PROMPTS, sampling, decode, batch=batch, progress=told.append)
    lengths = [len(sample.ids) for sample in samples]
    assert max(lengths) < 30, "all end before the limit"
    last = told[-1]
    assert (last.most, last.ended, last.made) == (last.step, len(samples), sum(lengths))
    assert all(pace.most >= last.step for pace in told)
    if batch == 64:
        assert last.step == max(lengths), "as many steps as the longest has tokens"
        assert told[1].words == f"step 2 of at most 30, {sum(k <= 2 for k in lengths)} of {len(samples)} done"
    if batch == 1:
        assert last.step <= sum(lengths) + len(PROMPTS)


def test_the_model_is_left_as_it_was() -> None:
    model = tiny().train()
    model.lm_head.eval()  # a part that was set apart stays so
    answers = stream(model, [1], Sampling(max_new_tokens=5), decode)
    next(answers)
    assert not model.training
    answers.close()
    assert model.training
    assert model.model.layers[1].self_attn.training
    assert not model.lm_head.training
    model(input_ids=torch.tensor([[1, 2]]), tree=OneSequence()).logits.sum().backward()  # no inference tensors stayed


class OneSequence:
    """The plainest attender: one causal sequence."""

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring) -> torch.Tensor:
        sdpa = torch.nn.functional.scaled_dot_product_attention
        return sdpa(q, k, v, is_causal=True, scale=scoring.scaling, enable_gqa=True).transpose(1, 2)


def test_the_cache_grows_and_closes_up() -> None:
    """Three rows of lengths 2, 70, 1: row 0 leaves, the last takes its place, and its keys with it."""
    model = tiny()
    with Engine(model, decode, rows=3) as engine:
        engine.submit([Request(ids, Sampling(max_new_tokens=9)) for ids in ([1, 2], list(range(1, 71)), [3])])
        engine.step()
        engine.step()
        cache = engine.cache
        assert cache.lengths == [3, 71, 2]
        third = cache.layer_keys[1][2, :, :2].clone()
        engine.cancel(0)
        assert cache.lengths == [2, 71]
        assert torch.equal(cache.layer_keys[1][0, :, :2], third)
        assert [s.handle for s in engine.running] == [2, 1]
        assert not engine.running[0].prompt.keys, "keys of a prompt are freed when all its samples have entered"


def test_generation_ends_where_the_context_does() -> None:
    model = tiny(max_position_embeddings=12)
    (sample,) = generate(model, [list(range(1, 10))], Sampling(max_new_tokens=50), decode)
    assert (len(sample.ids), sample.ended) == (3, "length")


@pytest.mark.parametrize(
    ("prompt", "words"), [([], sentence("prompt without tokens")), ([1] * 128, sentence("prompt too long"))]
)
def test_prompts_that_cannot_be_continued(prompt: list[int], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        generate(tiny(), [[1], prompt], Sampling(), decode)
    assert caught.value.where == "prompt 1"


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -0.1), ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1), ("min_p", 2.0),
     ("repetition_penalty", 0.0), ("max_new_tokens", 0), ("n", 0), ("stop", ("",))],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=sentence("sampling value", setting=name)):
        Sampling(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_broken_model_is_refused(temperature: float) -> None:
    model = tiny()
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    with pytest.raises(RunError, match=sentence("logits not finite")):
        generate(model, PROMPTS, Sampling(temperature=temperature), decode)


# ---- the samplers, on distributions made by hand


def kept(probs: list[float], **options: Any) -> list[int]:
    row = keep(torch.tensor([probs], dtype=torch.float64), Sampling(temperature=1.0, **options))[0]
    return row.nonzero()[:, 0].tolist()


def test_filters_on_a_distribution_made_by_hand() -> None:
    probs = [0.1, 0.4, 0.05, 0.3, 0.15]
    assert kept(probs) == [0, 1, 2, 3, 4]
    assert kept(probs, top_k=2) == [1, 3]
    assert kept(probs, top_k=9) == [0, 1, 2, 3, 4]
    assert kept(probs, top_p=0.39) == [1]
    assert kept(probs, top_p=0.41) == [1, 3]
    assert kept(probs, top_p=0.86) == [0, 1, 3, 4]
    assert kept(probs, min_p=0.5) == [1, 3]  # 0.2 and more
    assert kept(probs, min_p=1.0) == [1]
    assert kept(probs, top_k=2, top_p=0.5) == [1]  # of the 0.7 that top-k leaves, 0.4 is more than half
    assert kept(probs, top_p=0.86, min_p=0.3) == [1, 3, 4]
    assert kept([0.25] * 4, top_p=0.5) == [0, 1, 2, 3]  # ties stay together


def test_top_p_of_a_flat_distribution_looks_beyond_the_first_256() -> None:
    torch.manual_seed(0)
    probs = torch.rand(3, 5000, dtype=torch.float64).add(0.5)
    probs /= probs.sum(-1, keepdim=True)
    got = keep(probs, Sampling(temperature=1.0, top_p=0.9))
    for row, out in zip(probs, got, strict=True):
        order = row.argsort(descending=True)
        count = int((row[order].cumsum(0) < 0.9).sum()) + 1
        assert set(out.nonzero()[:, 0].tolist()) == set(order[:count].tolist())


def test_filters_agree_with_those_of_transformers() -> None:
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    torch.manual_seed(1)
    logits = 3 * torch.randn(20, 300, dtype=torch.float64)
    scores = logits
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(50), TopPLogitsWarper(0.8), MinPLogitsWarper(0.02)):
        scores = warper(torch.zeros(20, 1, dtype=torch.long), scores)
    ours = keep(torch.softmax(logits / 0.7, -1), Sampling(temperature=0.7, top_k=50, top_p=0.8, min_p=0.02))
    torch.testing.assert_close(ours / ours.sum(-1, keepdim=True), scores.softmax(-1))


def test_pick_inverts_the_cumulative_distribution() -> None:
    weights = torch.tensor([[0.0, 2.0, 0.0, 1.0, 1.0, 0.0]])
    for share, index in [(0.0, 1), (0.49, 1), (0.5, 3), (0.74, 3), (0.75, 4), (1.0, 4)]:
        assert pick(weights, torch.tensor([[share]])).item() == index


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1e-30, 1e-8, 0.3, 1.0]), min_size=1, max_size=40).filter(any),
    st.floats(0, 1, exclude_max=True),
)
def test_pick_never_takes_a_token_of_weight_zero(weights: list[float], share: float) -> None:
    row = torch.tensor([weights], dtype=torch.float32)
    assert row.gather(-1, pick(row, torch.tensor([[share]], dtype=torch.float64))).item() > 0


def test_draws_follow_the_distribution() -> None:
    """40,000 draws at temperature 2 of logits 2 log(p): shares are p, to four standard deviations."""
    probs = torch.tensor([0.1, 0.6, 0.05, 0.25], dtype=torch.float64)
    count = 40_000
    share = torch.from_numpy(random_numbers(Sampling(seed=5), 0, 0, count))
    ids, values = draw((2 * probs.log()).expand(count, -1), Sampling(temperature=2.0), share)
    seen = ids.bincount(minlength=4) / count
    assert ((seen - probs).abs() < 4 * (probs * (1 - probs) / count).sqrt()).all()
    torch.testing.assert_close(values, (2 * probs.log()).log_softmax(-1)[ids])


def test_random_numbers_belong_to_the_sample_alone() -> None:
    first = random_numbers(Sampling(seed=1), 2, 3, 8)
    assert (first == random_numbers(Sampling(seed=1, n=9, top_k=3), 2, 3, 16)[:8]).all()
    others = [random_numbers(Sampling(seed=s), p, n, 8)[0] for s, p, n in [(0, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2)]]
    assert len({first[0], *others}) == 5


def test_repetition_penalty_is_that_of_transformers() -> None:
    model = tiny()
    samples = generate(model, PROMPTS, Sampling(max_new_tokens=15, repetition_penalty=1.7), decode, batch=2)
    free = generate(model, PROMPTS, Sampling(max_new_tokens=15), decode, batch=2)
    assert [s.ids for s in samples] != [s.ids for s in free]
    for prompt, sample in zip(PROMPTS, samples, strict=True):
        assert list(sample.ids) == reference(model, prompt, max_new_tokens=15, repetition_penalty=1.7)
    logits = torch.tensor([[2.0, -2.0, 1.9, 0.5], [-1.0, -3.0, -1.2, -9.0]])
    seen = torch.tensor([[True, True, False, False]] * 2)
    processed = RepetitionPenaltyLogitsProcessor(1.5)(torch.tensor([[0, 1]] * 2), logits)
    ids, values = draw(logits, Sampling(repetition_penalty=1.5), torch.zeros(2), seen)
    assert ids.tolist() == processed.argmax(-1).tolist() == [2, 2]
    torch.testing.assert_close(values, logits.log_softmax(-1)[:, 2])  # of the model, not of the penalty


def test_requests_come_and_go_and_change_nothing_of_each_other() -> None:
    """Requests of different sampling, submitted in the middle, one of them dropped: each gives what it gives alone."""
    model = tiny()
    wanted = [
        Sampling(max_new_tokens=9), Sampling(temperature=1.0, max_new_tokens=6, n=2, seed=3),
        Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.3, max_new_tokens=8, seed=5), Sampling(max_new_tokens=20),
        Sampling(max_new_tokens=7),
    ]  # fmt: skip
    alone = [generate(model, [ids], sampling, decode) for ids, sampling in zip(PROMPTS, wanted, strict=True)]
    requests = [Request(ids, sampling) for ids, sampling in zip(PROMPTS, wanted, strict=True)]
    done: dict[int, list[Any]] = {}
    with Engine(model, decode, rows=3, pack=False) as engine:
        handles = engine.submit(requests[:2])
        for passed in range(100):
            if passed == 2:
                handles += engine.submit(requests[2:])
            if passed == 4:
                engine.cancel(handles[3])
            for sequence in engine.step():
                if sequence.ended:
                    done.setdefault(sequence.handle, []).append(sequence.sample(decode))
            if not engine:
                break
    assert sorted(done) == [0, 1, 2, 4]
    for handle, samples in done.items():
        assert [(s.ids, s.ended) for s in samples] == [(s.ids, s.ended) for s in alone[handle]]
        assert [s.logp for s in samples] == [pytest.approx(s.logp) for s in alone[handle]]


def test_a_common_beginning_is_read_while_others_run() -> None:
    model = tiny()
    long = list(range(1, 31))
    prompts = [[*long, 40], [*long, 41, 42]]
    first, *others = (
        [s.ids for s in generate(model, [ids], Sampling(max_new_tokens=9), decode)] for ids in ([7], *prompts)
    )
    done: dict[int, tuple[int, ...]] = {}
    with Engine(model, decode, rows=4, pack=False) as engine:
        engine.submit([Request([7], Sampling(max_new_tokens=9))])
        engine.step()
        engine.submit([Request(ids, Sampling(max_new_tokens=9)) for ids in prompts])
        while engine:
            done |= {s.handle: tuple(s.ids) for s in engine.step() if s.ended}
    assert [done[0]] == first and [[done[1]], [done[2]]] == others
