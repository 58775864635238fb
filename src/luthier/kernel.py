"""The parts for a training loop of one's own: examples/sft_loop.py and examples/grpo_loop.py are one on a page each.

encode        examples -> token trees           make_step   trees -> the micro-batches of one optimizer step, weighed
forward       a batch -> log-probabilities       likelihood, dpo, grpo, ...   a batch and its output -> a weighted sum
prepare       what of a model learns             Optimizer, schedule          AdamW with float32 master weights
generate      prompts -> samples                 group_relative               rewards of the samples -> advantages
Method        a row of METHODS, for a loss of your own: examples/my_method.py
leaf_sum, tree_mean, ...   sums over the answers and the examples of a batch, for losses
Engine        requests -> answers, while others run, each with an adapter of its own (load_adapter)
by_step       the gradient of a loss that sees the whole step, two passes over its micro-batches
join_ranks    many processes at one step: shared_out gives each its micro-batches, Optimizer.clip sums their gradients
"""

from luthier.config.data import TextConfig
from luthier.config.model import LoraConfig, QuantConfig
from luthier.config.rewards import PolicyConfig
from luthier.config.training import PreferenceConfig, RankingConfig, TrainConfig
from luthier.core.ranks import join as join_ranks
from luthier.core.seeds import derive as derive_seed
from luthier.core.seeds import seed_torch
from luthier.core.types.batch import Batch, Loss, Needs, Output, Step
from luthier.core.types.examples import Chat, Example, Labelled, Message, Preference, Prompt, Ranking
from luthier.core.types.examples import Text as TextExample
from luthier.core.types.trees import Media, Node, TokenTree
from luthier.generate.engine import Engine
from luthier.generate.generate import generate
from luthier.generate.request import Request, Sample
from luthier.generate.sampling import Sampling
from luthier.methods.advantages import group_relative, leave_one_out
from luthier.methods.likelihood import likelihood
from luthier.methods.ops import leaf_length, leaf_sum, pair_tree, tree_max, tree_mean, tree_sum
from luthier.methods.policy import grpo, ppo
from luthier.methods.preference import dpo, kto, orpo, simpo
from luthier.methods.reward import reward
from luthier.model.adapt.adapters import role as load_adapter
from luthier.model.adapt.adapters import save as save_adapter
from luthier.model.adapt.roles import Role
from luthier.model.adapt.tune import peak_rate, prepare
from luthier.model.forward import forward
from luthier.model.hub.sources import resolve as find_model
from luthier.model.load import load as load_model
from luthier.model.load import pick_device, pick_dtype
from luthier.rewards.selection import as_prompts
from luthier.text.encode import encode
from luthier.text.loss_weights import RULES
from luthier.text.pack import pack
from luthier.text.template import load_template
from luthier.text.tokenizer import Tokenizer
from luthier.training.method_table import METHODS, Method
from luthier.training.optim import Optimizer, schedule
from luthier.training.passes import by_step, shared_out
from luthier.training.steps import Packing, chosen_places, make_step

__all__ = [
    "METHODS", "RULES", "Batch", "Chat", "Engine", "Example", "Labelled", "LoraConfig", "Loss", "Media", "Message",
    "Method", "Needs", "Node", "Optimizer", "Output", "Packing", "PolicyConfig", "Preference", "PreferenceConfig",
    "Prompt", "QuantConfig", "Ranking", "RankingConfig", "Request", "Role", "Sample", "Sampling", "Step",
    "TextConfig", "TextExample", "TokenTree", "Tokenizer", "TrainConfig", "as_prompts", "by_step", "chosen_places",
    "derive_seed", "dpo", "encode", "find_model", "forward", "generate", "group_relative", "grpo", "join_ranks",
    "kto", "leaf_length", "leaf_sum", "leave_one_out", "likelihood", "load_adapter", "load_model", "load_template",
    "make_step", "orpo", "pack", "pair_tree", "peak_rate", "pick_device", "pick_dtype", "ppo", "prepare", "reward",
    "save_adapter", "schedule", "seed_torch", "shared_out", "simpo", "tree_max", "tree_mean", "tree_sum",
]  # fmt: skip
