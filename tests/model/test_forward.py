"""The forward pass of packed trees equals that of separate sequences, in value and gradient."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import gradient, random_tree, separate_logp, tiny_model
from luthier.core.types.batch import Needs
from luthier.core.types.trees import Node, TokenTree
from luthier.model import forward as forward_module
from luthier.model.forward import distributions, forward, head_output, hidden_states
from luthier.model.layers import flex, plan, vocabulary
from luthier.model.layers.scoring import Local, Scoring
from luthier.text.pack import pack


def both(trees, **changes):
    """(packed log-probabilities, separate ones, packed gradient, separate gradient) for random weights of targets."""
    ours, theirs = tiny_model("luthier", **changes), tiny_model("eager", **changes)
    weights = [[(i + k) % 5 + 0.5 for k in range(tree.trained)] for i, tree in enumerate(trees)]
    batch = pack(trees, weights, pad_to=16)
    packed = forward(ours, batch).logp
    (packed * batch.weight).sum().backward()
    apart = torch.cat([separate_logp(theirs, tree) for tree in trees])
    (apart * batch.weight).sum().backward()
    return packed, apart, gradient(ours), gradient(theirs)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 3))
@pytest.mark.medium
def test_packing_lets_no_document_see_another(seed, count, children):
    """trl#805 #1230 #3067, LLaMA-Factory#4224, axolotl#1465; and a shared prompt computed once is the same prompt."""
    draw = random.Random(seed)
    prefix = tuple(draw.randrange(512) for _ in range(draw.choice([0, 7])))
    trees = [random_tree(draw, prefix=prefix, children=children, row=i) for i in range(count)]
    packed, apart, ours, theirs = both(trees)
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-5)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_long_nodes_are_cut_into_blocks_of_queries():
    draw = random.Random(3)
    trees = [random_tree(draw, longest=200, children=c, row=c) for c in (0, 2)]
    assert max(len(node.ids) for tree in trees for node in tree.nodes) > plan.BLOCK or plan.BLOCK > 100
    packed, apart, ours, theirs = both([random_tree(random.Random(5), prefix=tuple(range(300)), row=9), *trees])
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-5)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_the_block_sparse_rule_is_the_same_attention():
    """The rule that a GPU's kernel takes, `j <= i < reach[j]`, against what the groups hide."""
    draw = random.Random(7)
    trees = [random_tree(draw, prefix=(1, 2, 3, 4, 5), children=c, row=c) for c in (2, 0, 3)]
    batch = pack(trees, [[1.0] * t.trained for t in trees], pad_to=8)
    ends = torch.tensor(plan.reach(batch.node_start, batch.node_parent))
    ends = ends.repeat_interleave(torch.tensor(batch.node_start).diff())
    i, j = torch.arange(len(batch.tokens))[:, None], torch.arange(len(batch.tokens))[None]
    rule = (j <= i) & (i < ends[None])
    seen = torch.zeros_like(rule)
    for group in plan.TreePlan(batch, torch.device("cpu")).groups:
        for queries, keys, hidden in zip(group.queries, group.keys, group.hidden, strict=True):
            q, k = (~hidden).nonzero(as_tuple=True)
            seen[queries[q], keys[k]] = True
    assert torch.equal(seen, rule)


@pytest.mark.medium
def test_flex_attention_gives_the_same():
    """The GPU path, run uncompiled on the CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    draw = random.Random(11)
    trees = [random_tree(draw, prefix=(1, 2, 3, 4, 5), children=c, row=c) for c in (2, 0, 3)]
    batch = pack(trees, [[1.0] * t.trained for t in trees], pad_to=16)
    q, k, v = (torch.randn(1, h, len(batch.tokens), 16) for h in (4, 2, 2))
    tree = plan.TreePlan(batch, torch.device("cpu"))
    ours = tree.attend(0, q, k, v, Scoring(0.25))
    theirs = flex_attention(q, k, v, block_mask=tree.block_mask(), scale=0.25, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_sliding_windows_hide_what_lies_too_far_back():
    draw = random.Random(2)
    trees = [random_tree(draw, longest=40, children=c, row=c) for c in (0, 2)]
    batch = pack(trees, [[1.0] * t.trained for t in trees])
    q, k, v = (torch.randn(1, 2, len(batch.tokens), 8) for _ in range(3))
    tree = plan.TreePlan(batch, torch.device("cpu"))
    ours = tree.attend(0, q, k, v, Scoring(0.3, Local(5)))[0]
    depth = batch.positions
    ends = torch.tensor(plan.reach(batch.node_start, batch.node_parent)).repeat_interleave(
        torch.tensor(batch.node_start).diff()
    )
    i, j = torch.arange(len(depth))[:, None], torch.arange(len(depth))[None]
    mask = (j <= i) & (i < ends[None]) & (depth[:, None] - depth[None] < 5)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)[0].transpose(0, 1)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.medium
def test_gradient_of_attention_in_float64():
    draw = random.Random(4)
    trees = [random_tree(draw, vocabulary=9, longest=6, children=c, row=c) for c in (0, 2)]
    batch = pack(trees, [[1.0] * t.trained for t in trees])
    tree = plan.TreePlan(batch, torch.device("cpu"))
    q, k, v = (torch.randn(1, h, len(batch.tokens), 4, dtype=torch.float64, requires_grad=True) for h in (4, 2, 2))
    assert torch.autograd.gradcheck(lambda q, k, v: tree.attend(0, q, k, v, Scoring(0.5)), (q, k, v))


@pytest.mark.parametrize("changes", [{}, {"logit_scale": 0.3}, {"final_logit_softcapping": 2.0}], ids=str)
@pytest.mark.parametrize("trained", [False, True], ids=["frozen head", "trained head"])
def test_the_head_has_right_gradients_whatever_the_loss(changes, trained, monkeypatch):
    """Liger#968 #678 #512 #827, cut-cross-entropy#14: the tiled head against the plain one, in float64."""
    monkeypatch.setattr(vocabulary, "CPU_TILE", (3, 200))  # of three states and 200 of 512 tokens
    model = tiny_model(dtype=torch.float64)
    for name, value in changes.items():
        setattr(model.config, name, value)
    weight = model.get_output_embeddings().weight.requires_grad_(trained)
    hidden = torch.randn(10, 32, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 512, (10,))

    def plain_logits():
        logits = hidden @ weight.T * changes.get("logit_scale", 1.0)
        cap = changes.get("final_logit_softcapping")
        return torch.tanh(logits / cap) * cap if cap else logits

    def plain():
        return plain_logits().log_softmax(-1).gather(-1, target[:, None])[:, 0]

    out = head_output(model, hidden, target, entropy=True)
    wanted = [hidden, weight] if trained else [hidden]
    loss = lambda logp: (logp.exp() * torch.arange(10)).sum()  # noqa: E731  any function of logp
    ours, theirs = torch.autograd.grad(loss(out.logp), wanted), torch.autograd.grad(loss(plain()), wanted)
    torch.testing.assert_close(out.logp, plain())
    logits = plain_logits()
    torch.testing.assert_close(out.entropy, -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_the_head_is_exact_for_logits_of_any_size(size, monkeypatch):
    """The largest logit may stand in any block: sums so far are scaled down, and nothing overflows."""
    monkeypatch.setattr(vocabulary, "CPU_TILE", (4, 50))
    weight = torch.randn(512, 32, dtype=torch.float64) * size
    hidden, target = torch.randn(9, 32, dtype=torch.float64, requires_grad=True), torch.randint(0, 512, (9,))
    logp, entropy = vocabulary.HeadLogp.apply(hidden, weight, target, 1.0, None, True)
    plain = (hidden @ weight.T).log_softmax(-1)
    torch.testing.assert_close(logp, plain.gather(-1, target[:, None])[:, 0])
    torch.testing.assert_close(entropy, -(plain.exp() * plain).nansum(-1))
    ours, theirs = (torch.autograd.grad(x.sum(), hidden)[0] for x in (logp, plain.gather(-1, target[:, None])))
    torch.testing.assert_close(ours, theirs)


def test_entropy_is_that_of_the_distribution():
    model = tiny_model()
    hidden, target = torch.randn(6, 32), torch.randint(0, 512, (6,))
    logp = model.get_output_embeddings()(hidden).log_softmax(-1)
    torch.testing.assert_close(head_output(model, hidden, target, entropy=True).entropy, -(logp.exp() * logp).sum(-1))


@pytest.mark.parametrize("changes", [{}, {"logit_scale": 0.3}, {"final_logit_softcapping": 2.0}], ids=str)
def test_whole_distributions_come_slice_by_slice(changes, monkeypatch):
    draw = random.Random(3)
    trees = [random_tree(draw, row=i) for i in range(3)]
    model = tiny_model(**changes)
    batch = pack(trees, [[1.0] * tree.trained for tree in trees])
    whole = distributions(model, batch)
    monkeypatch.setattr(forward_module, "SLICE_BYTES", 4 * 512 * 3)  # three targets at a time
    torch.testing.assert_close(distributions(model, batch), whole)
    at = torch.arange(len(whole))
    torch.testing.assert_close(whole[at, batch.label], forward(model, batch).logp, atol=1e-5, rtol=1e-5)
    nothing = TokenTree((Node((1, 2, 3), (False,) * 3),))  # a prompt whose answer was empty
    assert distributions(model, pack([nothing], [[]])).shape == (0, 512)


@pytest.mark.medium
def test_no_tensor_of_tokens_by_vocabulary_is_ever_made():
    """Automodel#3907, slime#2253, pytorch#124480: out of memory from [tokens, vocabulary] logits."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    model = tiny_model(vocabulary=50_000).requires_grad_(False)
    hidden = torch.randn(2000, 32, requires_grad=True)
    with Watch():
        head_output(model, hidden, torch.randint(0, 50_000, (2000,))).logp.sum().backward()
    assert largest <= max(512 * 1024, 50_000 * 32) < 2000 * 50_000  # a tile of logits, the weights themselves


def test_other_heads_take_the_plain_path():
    model = tiny_model(dtype=torch.float64)
    plain = model.get_output_embeddings()
    with_bias = torch.nn.Linear(32, 512, dtype=torch.float64)
    with_bias.weight.data, with_bias.bias.data = plain.weight.data, torch.randn(512, dtype=torch.float64)
    model.set_output_embeddings(with_bias)
    hidden, target = torch.randn(7, 32, dtype=torch.float64, requires_grad=True), torch.randint(0, 512, (7,))
    out = head_output(model, hidden, target).logp
    torch.testing.assert_close(out, with_bias(hidden).log_softmax(-1).gather(-1, target[:, None])[:, 0])
    assert torch.autograd.grad(out.sum(), hidden)[0].abs().sum() > 0
    assert head_output(model, hidden[:0], target[:0]).logp.shape == (0,)  # a batch that asks for nothing


def test_hidden_states_have_one_row_a_token():
    tree = random_tree(random.Random(0))
    assert hidden_states(tiny_model(), pack([tree], [[1.0] * tree.trained])).shape == (len(tree), 32)


def test_a_kernel_that_cannot_be_compiled_is_left_out_with_a_word(monkeypatch, capsys):
    from torch._dynamo.exc import TorchDynamoException

    def fails(*args, **kwargs):
        raise TorchDynamoException("no compiler here")

    monkeypatch.setattr(flex, "compiled", fails)
    q = torch.zeros(1, 1, 4, 16)
    assert flex.block_sparse(q, q, q, None, Scoring(1.0)) is None
    assert "no compiler here" in capsys.readouterr().err
    assert flex.block_sparse(q, q, q, None, Scoring(1.0)) is None, "asked once"
    assert not capsys.readouterr().err


def test_a_kernel_without_a_backward_pass_is_left_out_before_a_step_needs_it(monkeypatch, capsys):
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q):
            return q.clone()

        @staticmethod
        def backward(ctx, *grads):
            raise RuntimeError("out of shared memory")

    monkeypatch.setattr(flex, "compiled", lambda q, k, v, **settings: Forward.apply(q))
    monkeypatch.setattr(flex, "learns", set())
    q = torch.zeros(1, 1, 4, 16)
    assert flex.block_sparse(q, q, q, None, Scoring(1.0)) is not None, "nothing learns: the forward pass is enough"
    assert flex.block_sparse(q.requires_grad_(), q, q, None, Scoring(1.0)) is None
    assert "out of shared memory" in capsys.readouterr().err


def test_a_pass_is_a_call_of_the_root_module_whose_hooks_see_its_tensors():
    """FSDP gathers weights in such hooks, and frees them when gradients reach what the root returned."""
    model, seen = tiny_model(), []
    tree = random_tree(random.Random(0))
    batch = pack([tree], [[1.0] * tree.trained])
    plain = forward(model, batch, Needs(entropy=True))
    own = type(model).forward
    with (
        model.register_forward_pre_hook(lambda module, args: seen.append("before")),
        model.register_forward_hook(
            lambda module, args, out: seen.append(sorted(out) if isinstance(out, dict) else "tensor")
        ),
    ):
        hooked = forward(model, batch, Needs(entropy=True))
        distributions(model, batch)
    assert seen == ["before", ["entropy", "logp"], "before", "tensor"]
    assert torch.equal(plain.logp, hooked.logp)
    assert model.forward.__func__ is own, "the model's own forward is in its place again"


def test_a_pass_that_fails_leaves_the_model_its_own_forward():
    model = tiny_model()
    with pytest.raises(AttributeError):
        forward(model, None)
    assert "forward" not in vars(model)


def test_in_16_bits_a_processor_meets_few_sizes(monkeypatch):
    """oneDNN compiles kernels for each size and keeps them: without multiples every pass of a run made its memory grow."""
    draw = random.Random(3)
    trees = [random_tree(draw, prefix=(1, 2, 3, 4, 5), children=c, row=c) for c in (2, 0, 3)]
    batch = pack(trees, [[1.0] * t.trained for t in trees], pad_to=128)
    sizes: list[tuple[int, int]] = []
    attend, logits = plan.attend_blocks, vocabulary.logits_of
    monkeypatch.setattr(
        plan, "attend_blocks", lambda q, k, v, g, m, s: (sizes.append(m.shape[-2:]), attend(q, k, v, g, m, s))[1]
    )
    monkeypatch.setattr(vocabulary, "logits_of", lambda h, *rest: (sizes.append((len(h), 32)), logits(h, *rest))[1])
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_model(dtype=dtype)
        out = forward(model, batch).logp
        out.sum().backward()
        found[dtype] = out.detach(), model.get_input_embeddings().weight.grad, list(sizes)
        sizes.clear()
    assert all(n % 32 == 0 for size in found[torch.bfloat16][2] for n in size)
    assert any(n % 32 for size in found[torch.float32][2] for n in size)  # where it costs nothing, nothing is padded
    assert len(found[torch.bfloat16][0]) == len(batch.label)
    torch.testing.assert_close(found[torch.bfloat16][0], found[torch.float32][0], atol=0.1, rtol=0.05)
    grads = [found[dtype][1].float() for dtype in found]
    assert float((grads[0] - grads[1]).norm() / grads[0].norm()) < 0.03
