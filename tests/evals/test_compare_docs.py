"""docs/compare.md against the program: its suite is one, and its tables name every check and key."""

from __future__ import annotations

import re
from pathlib import Path

from luthier.evals.judging.judgments import KEYS, OPTIONAL
from luthier.evals.stats.paired import Difference
from luthier.evals.suites import spec
from luthier.evals.suites.cases import expand
from luthier.evals.suites.document import read
from luthier.evals.suites.results import prepare

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")


def test_the_suite_of_the_page_is_one(tmp_path):
    (tmp_path / "suite.yaml").write_text(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    (tmp_path / "capitals.csv").write_text("country,capital\nFrance,Paris\nItaly,Rome\n")
    cases = expand(read(tmp_path / "suite.yaml"))
    prepare(cases, tmp_path)
    assert [case.group for case in cases] == ["capitals", "capitals", "form", "form", "variety"]


def test_every_check_and_key_is_on_the_page():
    rows = re.findall(r"^\| `(\w+): ", PAGE, re.MULTILINE)
    assert rows == spec.names(spec.Check)
    for key in (*KEYS, *OPTIONAL):
        assert f"| `{key}` |" in PAGE
    told = set(Difference.__dataclass_fields__) - {"unit", "top", "higher_is_better", "variance", "fixed"}
    assert all(f"`{name}`" in PAGE for name in told)
