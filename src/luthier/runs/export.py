"""The result of a run in formats that others load: PEFT's for adapters, transformers' for models.

What was trained is what others read: the stop tokens of generation_config.json are those that were trained, the tokenizer's
end is the trained end of a turn, its template the one that was trained in. A system prompt that all rows had goes along.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from luthier.config.run import RunConfig
from luthier.core.storage.files import cache_folder, write_text
from luthier.model.adapt import adapters, heads, tune
from luthier.model.load import LoadedModel
from luthier.model.quiet import quiet
from luthier.runs import system_prompt
from luthier.runs.folder import RunFolder
from luthier.text.template import Template


def write(
    folder: RunFolder, tuned: tune.Tuned, loaded: LoadedModel, template: Template, config: RunConfig, system: str | None
) -> Path:
    """Write adapter/ or model/ of a run, whole or not at all, with tokenizer, template, stop tokens and system prompt."""
    if not tune.is_adapter(config.tune):
        return folder.write_folder(
            "model", lambda out: write_model(out, tuned.model, loaded.tokenizer, template, system)
        )

    def fill(out: Path) -> None:
        adapters.save(out, tuned.model, portable(loaded.address, folder.path), config.lora)
        stopping(tuned.model.generation_config, loaded.tokenizer, template).save_pretrained(out)
        _texts(out, loaded.tokenizer, template, system)

    return folder.write_folder("adapter", fill)


def write_model(out: Path, model: Any, tokenizer: Any, template: Template, system: str | None = None) -> None:
    """A transformers folder: config, safetensors, tokenizer, template and stop tokens.

    A reward model is read by AutoModelForSequenceClassification too: its score is that of the last token that is no
    padding, which must be the stop token. So padding must be told from it: where the config has one token for
    both, it is written without padding, and readers are asked for theirs.
    """
    if head := heads.on(model).get("score"):
        model.config.num_labels = head.out_features
        if model.config.pad_token_id in template.stop_ids:
            model.config.pad_token_id = None
    before = model.generation_config
    with quiet():
        try:
            model.generation_config = stopping(before, tokenizer, template)
            model.save_pretrained(out)
        finally:
            model.generation_config = before
    _texts(out, tokenizer, template, system)


def stopping(settings: Any, tokenizer: Any, template: Template) -> Any:
    """`settings` (a GenerationConfig) that stop at every token that ends an answer: the trained end of a turn first."""
    own = settings.eos_token_id
    listed = [
        template.end_of_turn,
        tokenizer.eos_token_id,
        *(own if isinstance(own, list) else [own]),
        *sorted(template.stop_ids),
    ]
    stops = list(dict.fromkeys(token for token in listed if token is not None))
    out = copy.deepcopy(settings)
    out.eos_token_id = stops[0] if len(stops) == 1 else stops
    return out


def portable(address: str, run: Path) -> str:
    """The name that a run gives its base: a hub name, or the folder, by its path from the working directory where run and
    base lie below that: it holds for a copy of the whole project too. PEFT reads a path from where it is started, so paths
    from the run would not be found; Luthier finds those itself (see `base`)."""
    here, base = Path.cwd(), Path(address)
    inside = base.is_absolute() and base.is_relative_to(here) and run.resolve().is_relative_to(here)
    return str(base.relative_to(here)) if inside and not base.is_relative_to(cache_folder().resolve()) else address


def _texts(out: Path, tokenizer: Any, template: Template, system: str | None) -> None:
    """The tokenizer with the template that was trained with, so that nobody asks the model in another one."""
    before = tokenizer.chat_template, tokenizer.eos_token
    source = template.as_jinja()
    with quiet():
        try:
            tokenizer.chat_template = source
            if (
                template.end_of_turn is not None and "eos_token" not in source
            ):  # else the text of the template would change
                tokenizer.eos_token = tokenizer.convert_ids_to_tokens(template.end_of_turn)
            tokenizer.save_pretrained(out)
        finally:
            tokenizer.chat_template, tokenizer.eos_token = before
    if system:
        write_text(out / system_prompt.FILE_NAME, system)
