"""Write docs/models.md: what Luthier makes of a tiny random model of every architecture that transformers builds.

python docs/models.py                 the architectures, as `make models`
python docs/models.py runs [KIND ..]  whole runs of all families, or of these
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
sys.path[:0] = [str(ROOT / "tests" / part) for part in ("", "model", "tune")]

HEAD = """# Models

Made by `make models`: a tiny random model of each architecture in transformers {version} is loaded, and Luthier's float32 results
are compared with transformers' own eager attention, one sequence at a time. `log p` is the largest difference over a packed row of trees
whose log-probabilities have a spread of about 1; `answers` is that of three greedy answers, which also have the same tokens; `gradient` is
the relative difference of all weights' gradients. Models of text and images are used for text only: their other parts do not change.

Answers are compared with transformers' forward pass over the whole text. Its `generate` reads token by token, and there the Mamba 2
layers of Nemotron-H, and others whose time steps have limits, forget the limits: their answers contradict their own forward pass.

When a model is loaded, `model/check.py` makes the same comparison on its weights. So what is refused here is refused before anything is
learned, and so is any model not in this list that differs.
"""

RUNS = "## Whole runs\n"
ABOUT_RUNS = """
Made by `python docs/models.py runs` (test: `tests/tune/test_families.py`): `luthier train` tunes a tiny random model of each family in
float32 and measures it before and after. The batches of a run's first step are then taken again, for an adapter also with its
final weights, and compared with transformers' eager attention over padded, separate sequences in float32 (in float64, where the
first are more than 1e-4 apart, since transformers rounds too): the largest difference of log p and of the loss, and the relative
difference of the gradients. `sft` is lora and full tuning; `dpo` and `grpo` are lora.

`qlora` (NF4 and int8) and `merge` compare log p of what `luthier merge` wrote, as transformers loads it, with the run's; two greedy answers
of eight tokens are also the same. `PEFT` compares log p of the adapter as PEFT loads it. `resume` names the methods for which a run that
was stopped after two of four steps, and then continued, ended with the same bits. `chat`, `eval` and `compare` worked with each sft run.

| family | sft | dpo | grpo | resume | qlora | PEFT | merge |
|---|---|---|---|---|---|---|---|
"""


def run_row(kind: str) -> str:
    """What the runs of a family came to, as a row of the table."""
    from families import FAMILIES, verify

    from conftest import made_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        found = verify(kind, Path(folder), made_tokenizer())
    assert found.exact, found
    trained = [f"{part.logp:.0e}, {part.gradient:.0e}" for part in (found.sft, found.dpo, found.grpo)]
    written = [f"{part.logp:.0e}" for part in (found.qlora, found.peft, found.merged)]
    cells = [f"{FAMILIES[kind]} (`{kind}`)", *trained, ", ".join(found.resumed), *written]
    return f"| {' | '.join(cells)} |"


def write_runs(kinds: list[str]) -> None:
    """Put the rows of these families into the page, each as soon as it is known; the others stay."""
    import torch
    from families import FAMILIES

    torch.set_num_threads(1)
    for kind in kinds or list(FAMILIES):
        row = run_row(kind)
        page = PAGE.read_text(encoding="utf-8")
        rows = {
            line.split("`")[1]: line for line in runs_of(page).splitlines() if line.startswith("| ") and "`" in line
        }
        rows[kind] = row
        table = "\n".join(rows[kind] for kind in FAMILIES if kind in rows)
        before, _, after = page.replace(runs_of(page), "").partition("## Exact\n")
        PAGE.write_text(f"{before}{RUNS}{ABOUT_RUNS}{table}\n\n## Exact\n{after}", encoding="utf-8")


def runs_of(page: str) -> str:
    """The section about whole runs; nothing where there is none yet."""
    return "".join(re.findall(rf"^{RUNS}.*?(?=^## )", page, re.M | re.S))


def text() -> str:
    """The page."""
    import torch
    import transformers
    from survey import architectures, survey_all

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = survey_all(architectures(), Path(folder))
    exact = [kind for kind, one in found.items() if not isinstance(one, str) and one.refused is None]
    lines = [
        (HEAD.format(version=transformers.__version__) + "\n" + runs_of(PAGE.read_text(encoding="utf-8")))[:-1],
        "## Exact\n",
        "| architecture | log p | answers | gradient |",
        "|---|---|---|---|",
    ]
    for kind in exact:
        one = found[kind]
        lines.append(f"| {kind} | {one.logp:.0e} | {one.generated:.0e} | {one.gradient:.0e} |")
    lines += ["\n## Refused\n", "| architecture | why |", "|---|---|"]
    lines += [f"| {kind} | {one.why} |" for kind, one in found.items() if not isinstance(one, str) and one.refused]
    lines += [
        "\n## Not tried\n",
        "No tiny model of these could be made from transformers' defaults here; the check when a model is loaded decides.\n",
    ]
    lines.append(", ".join(kind for kind, one in found.items() if isinstance(one, str)) + "\n")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["runs"]:
        write_runs(sys.argv[2:])
    else:
        PAGE.write_text(text(), encoding="utf-8")
