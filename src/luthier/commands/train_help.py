"""Three helps of `luthier train`: the essentials on one screen, all of it, and what one method reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from click.formatting import wrap_text

from luthier.commands.options import Command
from luthier.commands.settings import Setting

ESSENTIAL = (
    "method", "model", "tune", "out", "data.eval", "data.prompt", "data.completion", "data.limit", "text.max_length",
    "train.epochs", "train.batch", "train.lr", "lora.rank", "reward.use", "eval.every", "eval.samples",
)  # fmt: skip
HELP, HELP_ALL = ("-h", "--help"), "--help-all"


class TrainCommand(Command):
    """`--help` has what most runs need, `--help-all` everything, and `--help METHOD` what that method reads and others do not."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if HELP_ALL in args:
            return self._show(ctx, self.get_help(ctx))
        asked = next((place for place, name in enumerate(args) if name in HELP), None)
        if asked is None:
            return super().parse_args(ctx, args)
        name = next(iter(args[asked + 1 :]), "")
        return self._show(ctx, self._of_method(ctx, name) if name.isalnum() else self.essentials(ctx))

    def essentials(self, ctx: click.Context) -> str:
        """What most runs need, on one screen."""
        formatter = ctx.make_formatter()
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        with formatter.section("What most runs need"):
            formatter.write_dl([(option.opts[0], _brief(option)) for option in self._settings(ESSENTIAL)])
        with formatter.section("More"):
            formatter.write_dl([
                ("--from FILE", "Settings from a YAML file of Axolotl, LLaMA-Factory or TRL."),
                ("--json", "One JSON object on standard output."),
                ("--help METHOD", "What that method reads beside these: --help dpo."),
                (HELP_ALL, "Every setting."),
            ])  # fmt: skip
        return formatter.getvalue().rstrip("\n")

    def _of_method(self, ctx: click.Context, name: str) -> str:
        """The method in a line, and the settings that it reads and not every method."""
        from luthier.training.method_table import METHODS, method

        row = method(name)
        formatter = ctx.make_formatter()
        formatter.write_usage(ctx.command_path, f"DATA --method {name} [OPTIONS]")
        formatter.write(f"\n{wrap_text(f'{name}: {row.summary}.', formatter.width, '  ', '  ')}\n")
        chosen = [option for option in self._settings() if row.does_read(option.setting)]
        with formatter.section(f"What {name} reads and not every method"):
            formatter.write_dl([record for option in chosen if (record := option.get_help_record(ctx))])
        others = [other for other in METHODS if other != name]
        more = f"Beside these it reads what every method does: {HELP_ALL}. Other methods: {', '.join(others)}."
        formatter.write(f"\n{wrap_text(more, formatter.width)}")
        return formatter.getvalue().rstrip("\n")

    def _settings(self, names: Iterable[str] | None = None) -> Sequence[Setting]:
        """The options that are settings: all of them, or those of these names in that order."""
        options = {option.setting: option for option in self.params if isinstance(option, Setting)}
        return list(options.values()) if names is None else [options[name] for name in names]

    def _show(self, ctx: click.Context, text: str) -> list[str]:
        click.echo(text, color=ctx.color)
        ctx.exit()


def _brief(option: Setting) -> str:
    """The first clause of what an option says of itself, with its default."""
    words, bracket, default = str(option.help).partition("  [")
    first = min((words.partition(stop)[0] for stop in (". ", "; ", ": ")), key=len).rstrip(".")
    return f"{first}.{bracket}{default}"
