"""Options of all commands: one spelling is shown, others are understood, and long lists stand in groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)
SAMPLING, CLEANING, MACHINE, JUDGE, OUTPUT = "Sampling", "Cleaning (--clean)", "Machine", "Judge", "Output and help"
# Sections of the settings, and what their options stand below; what every run needs comes before what some methods read.
SECTIONS = {
    "": "Run", "data": "Data", "text": "Text", "train": "Training", "lora": "Adapters (lora, qlora)", "eval": "Evaluation",
    "stop": "Stopping early", "quant": "Quantized base (qlora)",
    "preference": "Preferences (dpo, simpo, orpo, kto, response)", "ranking": "Reward models (reward)",
    "reward": "Rewards (ppo, grpo, sample)", "rollout": "Sampling (ppo, grpo)", "policy": "Policy (ppo, grpo)",
}  # fmt: skip
GROUPS = ("", SAMPLING, CLEANING, *SECTIONS.values(), MACHINE, JUDGE, OUTPUT)
FEW = 10  # options that are one list, without groups


class Option(click.Option):
    """An option with its group in the help; `former` are older spellings, which are understood and not shown."""

    def __init__(self, *declarations: Any, group: str = "", former: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self.group, self.former = group, tuple(former)


def option(*declarations: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    """`click.option` with a `group` and `former` spellings."""
    return click.option(*declarations, cls=Option, **settings)


# The same in every command that samples answers.
top_p = option(
    "--top-p", group=SAMPLING, type=click.FloatRange(0, 1, min_open=True), default=1.0, metavar="X",
    help="Sample from the likeliest tokens whose probabilities sum to this.  [1]",
)  # fmt: skip
max_new_tokens = option(
    "--max-new-tokens", group=SAMPLING, type=click.IntRange(1), default=256, metavar="N", help="Longest answer in tokens.  [256]"
)  # fmt: skip


TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Command(click.Command):
    """A command that takes '_' for '-' in the names of its options, and '-' for '_'; and `--flag yes` and `--flag=false` for
    `--flag` and `--no-flag`, as other programs write them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._flags_without_values(args))

    def _flags_without_values(self, args: Sequence[str]) -> list[str]:
        flags = {
            name: option.secondary_opts[:1]
            for option in self.params
            if isinstance(option, click.Option) and option.is_flag and not option.is_eager
            for name in (*option.opts, *_others((*option.opts, *getattr(option, "former", ())), option.opts))
        }
        out: list[str] = []
        rest = list(args)
        while rest:
            name, sign, value = rest.pop(0).partition("=")
            if name == "--":
                return [*out, "--", *rest]
            if not sign and name in flags and rest and rest[0].lower() in TRUTH and not Path(rest[0]).exists():
                sign, value = "=", rest.pop(0)
            if name in flags and sign and value.lower() in TRUTH:
                out += [name] if TRUTH[value.lower()] else flags[name]
            else:
                out.append(f"{name}{sign}{value}")
        return out

    def make_parser(self, ctx: click.Context) -> Any:
        parser = super().make_parser(ctx)
        for option in self.get_params(ctx):
            if isinstance(option, click.Option):
                other = copy(option)
                other.opts = _others((*option.opts, *getattr(option, "former", ())), option.opts)
                other.secondary_opts = _others(option.secondary_opts, option.secondary_opts)
                other.add_to_parser(parser, ctx)
        return parser

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option) and not option.hidden]
        options.sort(key=lambda option: GROUPS.index(_group(option)))
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in options:
            title = _group(option) if len(options) > FEW else ""
            if record := option.get_help_record(ctx):
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            with formatter.section(title or "Options"):
                formatter.write_dl(records)


def spellings(command: click.Command) -> dict[str, str]:
    """Every spelling of an option that the command understands, with the one that its help shows; without dashes before."""
    out = {}
    for option in command.params:
        if isinstance(option, click.Option):
            for shown in (option.opts, option.secondary_opts):
                former = getattr(option, "former", ()) if shown is option.opts else ()
                for name in (*shown, *_others((*shown, *former), shown)):
                    out[name.lstrip("-")] = shown[0].lstrip("-")
    return out


def _group(option: click.Option) -> str:
    return option.group if isinstance(option, Option) else OUTPUT  # Click's own is --help


def _others(names: Iterable[str], but: Iterable[str]) -> list[str]:
    """These names and their spellings with '-' or '_' throughout, without those of `but`."""
    both = [f"--{name[2:].replace(*pair)}" for name in names for pair in (("_", "_"), ("_", "-"), ("-", "_"))]
    return [name for name in dict.fromkeys(both) if name not in tuple(but)]
