"""lm-evaluation-harness on Luthier's engine: the model class "luthier", with the harness's three verbs.

Importing this module registers it, so it needs the package lm-eval. The harness (0.4.13) looks for model classes of
its own only; `luthier lm-eval`, or `python -m luthier.evals.benchmarks.harness`, is its command line with this one added.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.threads import use_threads
from luthier.core.types.examples import Message
from luthier.evals.benchmarks.encode import HarnessTokenizer
from luthier.evals.benchmarks.evaluation import WRITTEN_AT_ONCE, chat_text, end_ids
from luthier.evals.likelihood import LikelihoodRequest, LikelihoodScorer
from luthier.generate.generate import generate
from luthier.generate.sampling import Sampling
from luthier.model.folder.limits import longest_input
from luthier.runs.open import open_model

WINDOW = 512  # requests that are packed together
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@register_model("luthier")
class LuthierLM(TemplateLM):  # type: ignore[misc]
    """A model or a run for the harness: `--model_args pretrained=RUN,dtype=float32,tokens=2048`.

    The harness's batch size has no meaning here: `tokens` bounds the memory of a forward pass.
    """

    def __init__(
        self, pretrained: str, device: str = "auto", dtype: str = "auto", tokens: int = 2048,
        threads: int | None = None, max_length: int | None = None, batch_size: Any = None, max_batch_size: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        use_threads(threads and int(threads))
        name = device.partition(":")[0]
        if name == "cuda" and not torch.cuda.is_available():  # the harness's default, also where there is none
            name = "auto"
        self.opened = open_model(pretrained, device=name, dtype=dtype)
        self.opened.model.eval()
        self.coder = HarnessTokenizer(self.opened.tokenizer)
        self.tokenizer = self.opened.tokenizer.fast
        self.max_length = int(max_length or longest_input(self.opened.model.config, self.opened.tokenizer.fast))
        self.scorer = LikelihoodScorer(self.opened.model, self.max_length, int(tokens))
        self.pretrained = pretrained
        self._device = self.opened.model.device

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What a text without context follows."""
        return self.coder.prefix

    @property
    def tokenizer_name(self) -> str:
        """Names the tokens, for the harness's cache of requests."""
        return self.opened.tokenizer.fingerprint()

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **others: Any) -> list[int]:
        """Token ids, with what the tokenizer adds by itself unless told otherwise."""
        if add_special_tokens is None:
            return list(self.coder.encode([string])[0])
        found = self.opened.tokenizer.fast.backend_tokenizer.encode(string, add_special_tokens=add_special_tokens)
        return list(found.ids)

    def tok_decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids."""
        return self.opened.tokenizer.decode(tokens, special=not skip_special_tokens)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The Jinja text of the template the run was trained with, for the harness's records."""
        return self.opened.template.as_jinja() if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages as text, under the system prompt that a run was trained with; a last turn of the assistant is begun,
        and left open, when no answer is asked for."""
        begun = "" if add_generation_prompt else chat_history[-1]["content"]
        asked = chat_history if add_generation_prompt else chat_history[:-1]
        messages = [Message(turn["role"], turn["content"]) for turn in asked]
        return chat_text(self.opened, messages) + begun

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str] | None, list[int], list[int]]], disable_tqdm: bool = False, **others: Any
    ) -> list[tuple[float, bool]]:  # fmt: skip
        """(log p, likeliest or not) of each (texts, context ids, continuation ids)."""
        out: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with log.progress("log-likelihoods", len(requests)) as bar:
            for start in range(0, len(requests), WINDOW):
                part = requests[start : start + WINDOW]
                asked = [LikelihoodRequest(tuple(context), tuple(continuation)) for _, context, continuation in part]
                for index, answer in self.scorer.answer(asked):
                    out[start + index] = (answer.logp, answer.greedy)
                    if (texts := part[index][0]) is not None:
                        self.cache_hook.add_partial("loglikelihood", texts, out[start + index])
                    bar.advance(1)
        return out

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """log p of each whole text."""
        out = [0.0] * len(requests)
        texts = [request.args[0] for request in requests]
        with log.progress("log-likelihoods of texts", len(requests)) as bar:
            for index, logp in self.scorer.rolling(self.coder.encode(texts), self.coder.prefix):
                out[index] = logp
                self.cache_hook.add_partial("loglikelihood_rolling", (texts[index],), logp)
                bar.advance(1)
        return out

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, up to the stop strings of each request; requests with equal settings run together."""
        alike: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            alike[repr(request.args[1])].append(index)
        out = [""] * len(requests)
        with log.progress("answers", len(requests)) as bar:
            for indices in alike.values():
                for start in range(0, len(indices), WINDOW // 8):
                    part = indices[start : start + WINDOW // 8]
                    for index, text in zip(part, self._write([requests[i].args for i in part]), strict=True):
                        out[index] = text
                        self.cache_hook.add_partial("generate_until", requests[index].args, text)
                        bar.advance(1)
        return out

    def _write(self, asked: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        settings = dict(normalize_gen_kwargs(asked[0][1], 256))
        until = handle_stop_sequences(settings.pop("until", None), eos=self.opened.tokenizer.eos or None)
        longest = int(settings.pop("max_gen_toks"))
        if longest >= self.max_length:
            raise InputError(f"max_gen_toks {longest} leaves nothing of the model's context of {self.max_length}")
        drawn = (
            {name: settings[name] for name in SAMPLING if settings.get(name) is not None}
            if settings.get("do_sample")
            else {}
        )
        sampling = Sampling(
            max_new_tokens=longest, stop_ids=end_ids(self.opened), stop=tuple(filter(None, until)), **drawn
        )
        prompts = [ids[longest - self.max_length :] for ids in self.coder.encode([text for text, _ in asked])]
        answers = generate(self.opened.model, prompts, sampling, self.opened.tokenizer.decode, batch=WRITTEN_AT_ONCE)
        return [postprocess_generated_text(answer.text, until, None) for answer in answers]


def main(arguments: Sequence[str]) -> None:
    """The harness's command line, with our model class unless another is named."""
    from lm_eval.__main__ import cli_evaluate

    chosen = any(argument.partition("=")[0] == "--model" for argument in arguments)
    verb = bool(arguments) and arguments[0] in ("run", "ls", "validate")
    runs = not chosen and (not verb or arguments[0] == "run")
    sys.argv = ["lm-eval", *arguments, *(["--model", "luthier"] if runs and len(arguments) > verb else [])]
    cli_evaluate()


if __name__ == "__main__":
    main(sys.argv[1:])
