"""Write docs/models.md: what Luthier makes of a tiny random model of every architecture that transformers builds."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "model")]

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
        HEAD.format(version=transformers.__version__),
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
    PAGE.write_text(text(), encoding="utf-8")
