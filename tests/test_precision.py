"""The precision of every operation is the one that was chosen for it."""

from __future__ import annotations

import platform
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from avx2 import imitated
from test_golden import CASES, parameters_after
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from lang_agent import LangAgentError, LanguagePolicy, PolicyAgent, make, play
from lang_agent.episode import TextObservation
from lang_agent.learn.muon import Muon, orthogonal
from lang_agent.learn.objective import evaluate_actions
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.sequences import by_length, collate, to_samples
from lang_agent.models import fused_mlp as fused
from lang_agent.models.attention import attend
from lang_agent.models.decide import RULES, DecideConfig
from lang_agent.models.fused_mlp import works
from lang_agent.models.kv_cache import RaggedCache
from lang_agent.models.phrase_scoring import lay_out
from lang_agent.models.precision import (
    WORTH_IT,
    _layers,
    bf16_speed,
    choose_precision,
    fastest_in_turns,
)
from lang_agent.models.trie import NO_PHRASES

SIXTEEN = (torch.bfloat16, torch.float16)


class Seen(TorchDispatchMode):
    """Collects the operations that read or give 16-bit numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.sixteen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if any(getattr(leaf, "dtype", None) in SIXTEEN for leaf in tree_leaves((args, out))):
            self.sixteen.add(str(func))
        return out


# -- Muon --------------------------------------------------------------------------------------


def test_orthogonal_keeps_the_singular_vectors_and_evens_the_values():
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(6, 6))
    v, _ = torch.linalg.qr(torch.randn(9, 6))
    values = torch.tensor([5.0, 2.0, 1.0, 0.5, 0.2, 0.1])
    for matrix, left, right in (
        (u @ values.diag() @ v.T, u, v),  # wide
        (v @ values.diag() @ u.T, v, u),  # tall
    ):
        inside = left.T @ orthogonal(matrix, torch.float32) @ right
        assert ((inside.diag() > 0.65) & (inside.diag() < 1.25)).all()
        torch.testing.assert_close(inside, inside.diag().diag(), atol=1e-5, rtol=0)
    assert orthogonal(torch.zeros(3, 4), torch.float32).eq(0).all()


def test_one_newton_schulz_step_on_a_scalar_by_hand():
    """On a 1 x 1 matrix the norm makes the value 1, and each step is s -> a s + b s^3 + c s^5."""
    value = 1.0
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    found = orthogonal(torch.tensor([[-0.3]]), torch.float32).item()
    assert found == pytest.approx(-value, abs=1e-5)


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (16, 16), (1, 7)])
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.bfloat16, 0.0), (torch.float32, 1e-3)])
def test_muon_steps_as_torchs_does(shape, precision, tolerance):
    """In bf16 to the bit; in float32 but for torch's rounding. Four steps move about 0.02."""
    generator = torch.Generator().manual_seed(0)
    ours = nn.Parameter(torch.randn(shape, generator=generator))
    theirs = nn.Parameter(ours.detach().clone())
    options = {"lr": 0.03, "weight_decay": 0.1}
    mine = Muon([ours], precision=lambda: precision, **options)
    torchs = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **options)
    for _ in range(4):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        mine.step()
        torchs.step()
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)
    state = mine.state_dict()["state"][0], torchs.state_dict()["state"][0]
    torch.testing.assert_close(*state, atol=0, rtol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_muon_follows_the_policys_precision(precision):
    policy = LanguagePolicy.from_scratch("nano", seed=0)
    optimizer = Optimizer(policy, "muon", 1e-3, 0.0)
    policy.set_precision(precision)  # after the optimizer was made
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    with Seen() as seen:
        optimizer.step()
    assert any("addmm" in name for name in seen.sixteen) == (precision == "bf16")


def test_optimizer_state_goes_on_to_the_bit():
    def train(policy, optimizer, steps, generator):
        for _ in range(steps):
            for parameter in policy.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    def made():
        policy = LanguagePolicy.from_scratch("nano", seed=0)
        return policy, Optimizer(policy, "muon", 1e-3, 0.1)

    whole, optimizer = made()
    train(whole, optimizer, 4, torch.Generator().manual_seed(0))
    half, first = made()
    generator = torch.Generator().manual_seed(0)
    train(half, first, 2, generator)
    again, second = made()
    again.load_state_dict(half.state_dict())
    saved = {name: tensor.clone() for name, tensor in first.state_tensors().items()}
    assert any(name.endswith("momentum_buffer") for name in saved)
    second.load_state_tensors(saved)
    train(again, second, 2, generator)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


# -- whole runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ppo-muon", "trpo", "kl-loss", "constrained", "generate-tokens"])
def test_a_run_in_fp32_computes_nothing_in_16_bits(name, tmp_path):
    assert CASES[name].precision == "fp32"
    with Seen() as seen:
        parameters_after(name, tmp_path / "run")
    assert not seen.sixteen


# -- what measures fast ------------------------------------------------------------------------


def test_precision_is_chosen_by_measuring():
    cpu = torch.device("cpu")
    for width in (128, 768):
        faster = bf16_speed(cpu, width, True) >= WORTH_IT
        chosen = torch.bfloat16 if faster else torch.float32
        assert choose_precision("auto", cpu, width) == chosen
    assert choose_precision("fp32", cpu) == torch.float32
    assert choose_precision("bf16", cpu) == torch.bfloat16
    with pytest.raises(LangAgentError, match="fp16"):
        choose_precision("fp16", cpu)


def test_every_other_product_that_is_measured_has_a_new_shape(monkeypatch):
    seen = []
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda a, b: (seen.append((a.dtype, *a.shape)), product(a, b))[1],
    )
    work = _layers(torch.device("cpu"), torch.bfloat16, 8, new=True)
    for _ in range(5):
        work()
    assert len(seen) == 10
    assert len(set(seen[::2])) == 1
    assert len(set(seen[1::2])) == 5
    assert {shape[2] for shape in seen} == {8}


def test_where_nothing_acts_shapes_that_come_again_are_measured_alone(monkeypatch):
    seen = []
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: (seen.append(a.shape), product(a, b))[1]
    )
    work = _layers(torch.device("cpu"), torch.bfloat16, 8, new=False)
    work()
    work()
    assert len(seen) == 4
    assert len(set(seen)) == 1


def test_a_layout_that_is_filled_up_reads_the_same(policy):
    """Rows of several lengths with phrases of several tokens behind them, in few shapes."""
    actions = [("go forward", "turn left", "turn right"), ("go forward", "pick up")]
    tries = [policy.trie(phrases, "sum") for phrases in actions]
    rows = [policy.encode("a red ball 2 steps forward"), policy.encode("a door")]
    ends = [[len(row) - 1] for row in rows]
    layout = lay_out(rows, [0, 0], ends, [[trie] for trie in tries], policy.device)
    filled = layout.filled_up()
    assert filled.token_ids.shape == (4, 16)
    with torch.no_grad():
        first, second = (
            policy.scores(policy.hidden_states(one, decisions_only=True), one, tries).log_policy
            for one in (layout, filled)
        )
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    wide = layout.filled_up(rows=1, columns=1)
    assert wide.token_ids.equal(layout.token_ids)
    assert wide.seen(layout.token_ids.shape[1]).equal(layout.seen(layout.token_ids.shape[1]))


def test_measuring_takes_turns_on_one_thread_and_leaves_the_threads_alone():
    cpu, threads, order = torch.device("cpu"), [], []

    def work(name):
        order.append(name)
        threads.append(torch.get_num_threads())
        time.sleep({"slow": 2e-3, "fast": 1e-4}[name])

    slow, fast = fastest_in_turns([lambda: work("slow"), lambda: work("fast")], cpu, 0.02)
    assert 2e-3 <= slow < 0.02
    assert 1e-4 <= fast < slow
    assert order[::2] == ["slow"] * (len(order) // 2)
    assert order[1::2] == ["fast"] * (len(order) // 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        bf16_speed.cache_clear()
        with Threads() as seen:
            bf16_speed(cpu)
        assert seen.threads == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Threads(TorchDispatchMode):
    """Collects how many threads products are computed with."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket == torch.ops.aten.mm:
            self.threads.add(torch.get_num_threads())
        return func(*args, **(kwargs or {}))


# -- the fused feed-forward layer --------------------------------------------------------------


def _feed_forward(policy, precision, rows=(2, 3)):
    """A layer's output as acting computes it, and the operations that it took."""
    mlp = policy.model.transformer.h[0].mlp
    x = torch.randn(*rows, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), Operations() as seen:
        if precision == "bf16":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return mlp(x), seen.names
        return mlp(x), seen.names


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket._qualified_op_name)
        return func(*args, **(kwargs or {}))


FUSED = "mkldnn::_linear_pointwise"


def test_the_fused_layer_is_used_in_the_precision_that_it_was_tried_in(policy):
    plain, names = _feed_forward(policy, "fp32")
    assert FUSED not in names
    works.cache_clear()
    _feed_forward(policy, "bf16")  # tries it
    found, names = _feed_forward(policy, "bf16")
    assert (FUSED in names) == works(torch.bfloat16, 128, 512, "none")
    torch.testing.assert_close(found.float(), plain, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("broken", ["raises", "wrong"])
def test_a_fused_layer_that_does_not_work_is_left_alone(policy, broken, monkeypatch):
    """As on a processor without bf16, where the operation is there and works in float32 alone."""
    plain, _ = _feed_forward(policy, "fp32")

    def operation(x, weight, bias, approximate):
        if broken == "raises":
            raise RuntimeError("could not create a primitive descriptor")
        return x @ weight

    monkeypatch.setattr(fused, "linear_gelu", operation)
    works.cache_clear()
    try:
        found, names = _feed_forward(policy, "bf16")
    finally:
        works.cache_clear()
    assert FUSED not in names
    torch.testing.assert_close(found.float(), plain, atol=0.05, rtol=0.05)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="imitates an x86 one")
def test_a_processor_without_bf16_acts_and_learns_in_either_precision():
    code = """
import torch
from lang_agent import LanguagePolicy
from lang_agent.learn.optimizer import Optimizer
torch.set_num_threads(1)
texts = ["Goal: go left", "Goal: stay"] * 9
policy = LanguagePolicy.from_scratch("nano", seed=3, texts=texts, context=64)
policy.set_precision("auto")
assert policy.precision == torch.float32, "bf16 measured faster"
actions = ("left", "stay")
exact = policy.action_log_probs(["Goal: go"], actions).detach()
policy.set_precision("bf16")
with torch.no_grad():
    acting = policy.action_log_probs(["Goal: go"], actions)
learning = policy.action_log_probs(["Goal: go"], actions)
torch.testing.assert_close(acting, exact, atol=0.05, rtol=0)
torch.testing.assert_close(learning.detach(), exact, atol=0.05, rtol=0)
policy.set_precision("fp32")
policy.action_log_probs(["Goal: go"], actions)[0, 0].backward()
Optimizer(policy, "muon", 1e-2, 0.0).step()
assert policy.action_log_probs(["Goal: go"], actions)[0, 0] < exact[0, 0]
"""
    imitated([sys.executable, "-c", code])


# -- families in bf16 --------------------------------------------------------------------------

ACTIONS = ("turn left", "go forward", "levitate gently")
PROMPTS = ("Goal: go to the red ball\nYou see a wall\nAction:", "Goal: x\nAction:")


def _llama(vocabulary: int):
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, intermediate_size=64, max_position_embeddings=256, pad_token_id=0,
    ))  # fmt: skip


def _big_code(vocabulary: int):
    return GPTBigCodeForCausalLM(GPTBigCodeConfig(
        vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=256, multi_query=True,
    ))  # fmt: skip


def _phi(vocabulary: int):
    return PhiForCausalLM(PhiConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=256, pad_token_id=0,
    ))  # fmt: skip


def _gptj(vocabulary: int):
    return GPTJForCausalLM(GPTJConfig(
        vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=256,
    ))  # fmt: skip


@pytest.mark.parametrize("make", [_llama, _big_code, _phi, _gptj])
def test_bf16_serves_shared_keys_and_biased_heads(policy, make):
    torch.manual_seed(0)
    model = make(len(policy.tokenizer))
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        nn.init.normal_(bias, std=2.0)
    other = LanguagePolicy(model, policy.tokenizer)
    for rule in RULES:
        other.set_precision("fp32")
        exact = other.action_log_probs(PROMPTS, ACTIONS, rule=rule).detach()
        other.set_precision("bf16")
        learned = other.action_log_probs(PROMPTS, ACTIONS, rule=rule)
        torch.testing.assert_close(learned.detach(), exact, atol=0.05, rtol=0)
        learned[:, 0].sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        agent = PolicyAgent(other, 2, DecideConfig(rule, temperature=0))
        seen = [TextObservation(prompt, ACTIONS) for prompt in PROMPTS]
        for row, decision in enumerate(agent.act([0, 1], seen)):
            if rule != "constrained":  # its tokens are decisions of their own
                found = decision.tokens.log_probs[0]
                assert found == pytest.approx(exact[row].max().item(), abs=0.05)
    assert len(other.generate(PROMPTS, max_new_tokens=5, stop=None)) == len(PROMPTS)


def test_free_text_in_bf16_is_as_likely_as_in_fp32(policy):
    """The bias of a head is in the logits of whatever is written."""
    torch.manual_seed(0)
    model = _phi(len(policy.tokenizer))
    nn.init.normal_(model.lm_head.bias, std=2.0)
    other = LanguagePolicy(model, policy.tokenizer)
    states = torch.randn(3, 32)
    with torch.no_grad():
        exact = other.token_logits(states)
        torch.testing.assert_close(exact, model.lm_head(states), atol=1e-5, rtol=0)
        other.set_precision("bf16")
        rounded = other.token_logits(states.bfloat16())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0)


@pytest.mark.parametrize("mask", ["none", "added", "bool"])
@pytest.mark.parametrize("width", [1, 5, 300])
def test_attention_in_bf16_is_plain_softmax_attention(mask, width):
    """Learning (W queries, W keys) and single queries before more keys; two heads of keys for four
    of queries."""
    generator = torch.Generator().manual_seed(0)
    keys = 7 if width == 1 else width
    query = torch.randn(2, 4, width, 8, generator=generator, requires_grad=True)
    key, value = torch.randn(2, 2, 2, keys, 8, generator=generator)
    seen = torch.ones(width, keys, dtype=torch.bool).tril(keys - width)
    if mask != "none":
        seen = seen.expand(2, 1, width, keys).clone()
        seen[1, :, :, 1:3] = False
    added = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    scores = query @ key.repeat_interleave(2, 1).mT * 8**-0.5 + added
    expected = (scores.softmax(-1) @ value.repeat_interleave(2, 1)).transpose(1, 2)
    given = {"none": None, "added": added.bfloat16(), "bool": seen}[mask]
    layer = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    found, _ = attend(layer, query.bfloat16(), key.bfloat16(), value.bfloat16(), given)
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("width", [40, 300])
def test_attention_in_bf16_rounds_no_scores(width):
    """Scores beyond a hundred decide between keys by what bf16 would round away: queries and keys
    are rounded, their products are not."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, width, 16, generator=generator).bfloat16()
    query, key = 6 * query, 6 * key
    scores = query.double() @ key.double().mT / 4
    scores = scores.masked_fill(torch.ones(width, width).triu(1) == 1, -torch.inf)
    expected = (scores.softmax(-1) @ value.double()).transpose(1, 2)
    assert scores.max() > 100
    layer = SimpleNamespace(num_key_value_groups=1, is_causal=True)
    found, _ = attend(layer, query.requires_grad_(), key, value, None)
    torch.testing.assert_close(found.double(), expected, atol=0.03, rtol=0)


@pytest.mark.parametrize("mask", [None, "added"])
def test_attentions_gradient_in_bf16_is_that_of_plain_softmax_attention(mask):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 24, 8, generator=generator).bfloat16()
    key = torch.randn(2, 2, 24, 8, generator=generator).bfloat16()
    value = torch.randn(2, 2, 24, 6, generator=generator).bfloat16()
    hidden = torch.ones(2, 1, 24, 24).triu(1) == 1
    if mask:
        hidden[1, :, 10:, 3:6] = True
    added = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)
    wanted = torch.randn(2, 24, 4, 6, generator=generator)

    exact = [part.double().requires_grad_() for part in (query, key, value)]
    scores = exact[0] @ exact[1].repeat_interleave(2, 1).mT * 8**-0.5 + added
    out = (scores.softmax(-1) @ exact[2].repeat_interleave(2, 1)).transpose(1, 2)
    expected = torch.autograd.grad((out * wanted).sum(), exact)

    rounded = [part.detach().requires_grad_() for part in (query, key, value)]
    layer = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    found, _ = attend(layer, *rounded, added.bfloat16() if mask else None)
    gradients = torch.autograd.grad((found * wanted).sum(), rounded, retain_graph=True)
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient.double(), right, atol=0.05, rtol=0.02)
    (twice,) = torch.autograd.grad(found.square().sum(), rounded[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        twice.sum().backward()


def test_acting_and_learning_in_bf16_agree_on_the_shipped_policy():
    """The ratios of the first epoch are 1 but for rounding, in every decision."""
    policy = LanguagePolicy.from_pretrained("babyai", precision="bf16")
    envs = [make("BabyAI-MixedLocal-v0", max_steps=20) for _ in range(8)]
    episodes = list(play(PolicyAgent(policy, 8), envs, range(16)))
    credit = [[[0.0]] * len(episode.steps) for episode in episodes]
    batches = by_length(to_samples(policy, episodes, credit, credit, "sum"), 8192)
    for samples in batches:
        batch = collate(samples, policy.device)
        learned = evaluate_actions(policy, batch, DecideConfig())  # with gradients, as in learning
        ratios = (learned.log_probs - batch.log_probs)[batch.mask].detach().exp()
        assert ((ratios > 0.8) & (ratios < 1.25)).all()


def test_attention_is_computed_in_the_policys_precision(policy):
    """Llama rotates its queries in float32; in bf16 they are rounded before the products, and what
    the cache keeps of them is."""
    other = LanguagePolicy(_llama(len(policy.tokenizer)), policy.tokenizer, precision="bf16")
    with Seen() as seen:
        other.action_log_probs(PROMPTS, ACTIONS)
    assert "aten.bmm.out" in seen.sixteen  # of attention's weights with the values
    cache = RaggedCache(1)
    with torch.no_grad():
        layout = lay_out([[1, 2, 3]], [0], [[2]], [[NO_PHRASES]], other.device)
        other.hidden_states(layout, cache, torch.tensor([0]))
    assert {held.dtype for held in (*cache._keys, *cache._values)} == {torch.bfloat16}
