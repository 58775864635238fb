"""The command line: find the command, run it, turn errors into one line and an exit status.

Exit 0 done, 2 the input is wrong, 130 stopped by the user, 1 anything else. Commands are imported when
they are asked for, so that `luthier --help` answers at once.
"""

from __future__ import annotations

import signal
import sys
import traceback
from importlib import import_module
from types import FrameType

import click

from luthier import __version__
from luthier.core.errors import LuthierError, nearest, unknown
from luthier.core.machine import wait_passively
from luthier.core.screen import guard, line, printable
from luthier.core.secrets import hide
from luthier.core.storage.opening import ANYWHERE, full_disk, refusal

# In the order of work.
GROUPS = {
    "Start": {
        "quickstart": "Tune a small model in a few minutes, and see before and after.",
    },
    "Look at data": {
        "data": "What is in this data: layout, lengths, duplicates, what to fix.",
        "show": "Token by token: what a model would learn from this data.",
    },
    "Train": {
        "train": "Tune a model on your data, and measure what changed.",
        "sample": "Sample answers, score them, and keep the best as training data.",
    },
    "Measure": {
        "eval": "Measure a model or a run on benchmarks.",
        "lm-eval": "Run any task of lm-evaluation-harness on Luthier's engine.",
        "test": "Test a model: prompts, and what the answers must be.",
        "errors": "What is wrong with a run's answers, and which rows taught it.",
        "score": "Score answers with a reward model.",
    },
    "Compare and judge": {
        "compare": "Compare models and runs on the same items, with intervals.",
        "judge": "Let a model judge which of two or more models answers better.",
        "elo": "Rate models on the Elo scale from judgments.",
    },
    "Use": {
        "chat": "Talk to a model or a run, beside its base if you like.",
        "merge": "Merge a run's adapter into its model, and say how close it is.",
    },
    "Models and runs": {
        "models": "List the models that are embedded or cached here.",
        "fit": "What fits into memory: tuning a model, and serving it.",
        "report": "Write the page of a run, of several runs, or for coding answers.",
        "verify": "Prove that a run resumes to the same bits, or check a method.",
    },
}
COMMANDS = {name: line for group in GROUPS.values() for name, line in group.items()}
# What people type who know other programs -> how it is done here.
DEEDS = {
    "finetune fine-tune tune fit-model run-training sft-train": "train",
    "sft cpt dpo simpo orpo kto reward ppo grpo": "train --method {}",
    "lora qlora full": "train --tune {}",
    "generate infer inference predict run ask complete cli": "chat",
    "evaluate benchmark bench metrics harness": "eval",
    "preprocess prepare inspect-data validate": "data",
    "tokenize tokens template": "show",
    "export merge-lora merge-and-unload save fuse": "merge",
    "win-rate vote arena": "judge",
    "leaderboard rate": "elo",
    "log logs plot view board webui": "report",
    "list ls download pull": "models",
    "diff versus vs": "compare",
    "resume": "train",
    "init demo start example": "quickstart",
}  # fmt: skip
TEXTS_ONLY = ("data", "show")  # commands that read a model's tokenizer and compute nothing with it


class Luthier(click.Group):
    """Commands by name, imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"luthier.commands.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0].replace("_", "-") in COMMANDS:
            return super().resolve_command(ctx, [args[0].replace("_", "-"), *args[1:]])
        if args:
            raise click.UsageError(f"unknown command '{args[0]}'; {_nearest_command(args[0])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))  # one column for all groups
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, line in commands.items()])


@click.group(cls=Luthier, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="luthier", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def luthier(debug: bool) -> None:
    """Tune language models on your own data, and measure what changed.

    Start with `luthier quickstart`. With data of your own:

    \b
      luthier data rows.jsonl                      look at it
      luthier show rows.jsonl                      see what would be learned
      luthier train rows.jsonl                     tune, before and after
      luthier chat runs/NAME --compare base        talk to the result
    """


def _nearest_command(name: str) -> str:
    """The command that was probably meant, by its name or by what other programs call the deed."""
    word = name.lower().replace("_", "-")
    deed = next((command.format(word) for words, command in DEEDS.items() if word in words.split()), None)
    guess = deed or nearest(name, COMMANDS)
    return f"did you mean `luthier {guess}`?" if guess else "see `luthier --help`"


def _ended(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """The `luthier` program. SIGTERM ends it as Ctrl-C does, tidily and with status 130, where nothing catches it to save more."""
    signal.signal(signal.SIGTERM, _ended)
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    guard()
    wait_passively()
    if arguments and arguments[0] in TEXTS_ONLY:
        from luthier.model.folder.tokenizer import leave_torch_out

        leave_torch_out()
    try:
        sys.exit(run(arguments, debug=debug))
    except Exception:  # that --debug asked for
        sys.stderr.write(printable(hide(traceback.format_exc())))
        sys.exit(1)


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command line; return the exit status."""
    try:
        luthier.main(arguments, prog_name="luthier", standalone_mode=False)
    except LuthierError as error:
        if debug:
            raise
        return _say(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
    except click.ClickException as error:
        return _say(_usage(error), 2)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; nothing is left to say
        return 141
    except OSError as error:
        if debug:
            raise
        return _say(*_system(error))
    except MemoryError:
        return _say("out of memory; lower --train.tokens, or use --tune lora or qlora", 1)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ValueError) and "embedded null" in str(error):  # a run file or a suite can write one
            return _say(
                "the name of a file or folder holds a zero byte, which none can have; fix it where it is given", 2
            )
        return _say(f"{type(error).__name__}: {line(str(error))[:300]}; --debug shows where, please report it", 1)
    return 0


def _say(text: str, status: int) -> int:
    text = line(hide(text))
    colour = sys.stderr.isatty()
    print(f"\x1b[31mluthier: {text}\x1b[0m" if colour else f"luthier: {text}", file=sys.stderr)
    return status


def _usage(error: click.ClickException) -> str:
    """Click's message as one line, with the nearest option when one was mistyped."""
    if isinstance(error, click.NoSuchOption):
        if told := _called_elsewhere(error):
            return told
        return f"unknown option '{error.option_name}'; {_nearest_option(error)}"
    if isinstance(error, click.BadOptionUsage) and "requires an argument" in error.message:
        return f"{error.option_name} needs a value; see --help"
    if isinstance(error, click.BadParameter) and isinstance(error.param, click.Option):
        name = error.param.opts[0]
        if isinstance(error.param.type, click.Choice) and "is not one of" in error.message:
            given = error.message.split("'")[1]
            return str(unknown("value", given, error.param.type.choices, where=name))
        if not isinstance(error, click.MissingParameter):
            return f"{name}: {' '.join(error.message.split()).rstrip('.')}"
    if isinstance(error, click.MissingParameter) and error.param is not None and error.ctx is not None:
        return f"{error.param.make_metavar(error.ctx)} is missing; see `{error.ctx.command_path} --help`"
    return " ".join(error.format_message().split())


def _nearest_option(error: click.NoSuchOption) -> str:
    """The option that was probably meant, by its own name or by one that other programs have for it."""
    from luthier.config.elsewhere import nearest_setting

    options = _options(error)
    guess = nearest_setting(error.option_name, options)
    if guess is None:
        return "see --help"
    option, name = guess
    return f"did you mean '--{option}'?" + ("" if name in options else f" It is what others call {name}")


def _called_elsewhere(error: click.NoSuchOption) -> str | None:
    """An option of another program's: what it is called here, where this command has it, or why there is none."""
    from luthier.config.elsewhere import needless, setting_for
    from luthier.config.resolve import about

    setting = setting_for(error.option_name) or error.option_name.lstrip("-")
    options = _options(error)
    places = [p for p in error.ctx.command.params if isinstance(p, click.Argument)] if error.ctx is not None else []
    if setting in options:
        fix = f"here it is --{options[setting]}: {about(setting)}"
    elif setting in ("model", "data.path") and places and error.ctx is not None:
        fix = f"give it without an option: `{error.ctx.command_path} {places[0].make_metavar(error.ctx)}`"
    elif (said := needless(error.option_name)) and "train.steps" in options:
        fix = said
    else:
        return None
    return f"unknown option '{error.option_name}'; {fix}"


def _system(error: OSError) -> tuple[str, int]:
    """What the operating system refused. A full disk and a closed door are the user's to fix: exit status 2."""
    place = f"{error.filename}: " if error.filename else ""
    if (full_disk(error) or error.errno in ANYWHERE) and (told := refusal(error, error.filename)):
        return str(told), told.exit_code
    return f"{place}{error.strerror or error}; --debug shows where", 1


def _options(error: click.NoSuchOption) -> dict[str, str]:
    """Every spelling that the command understands, with the one that it shows."""
    from luthier.commands.options import spellings

    return spellings(error.ctx.command) if error.ctx else {}
