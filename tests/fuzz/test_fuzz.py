"""Damaged and hostile files, thousands of them: each is read, or refused in one line.

In `make test` the same few cases each time. `make test-slow` takes new ones each day, for ten minutes; LUTHIER_FUZZ_SEED takes
those of another day again, LUTHIER_FUZZ_SECONDS other than ten minutes.
"""

from __future__ import annotations

import os
import random
import time
from datetime import date
from pathlib import Path

import fuzz_child
import fuzz_data  # noqa: F401  each of the three adds its readers
import fuzz_files
import fuzz_models  # noqa: F401
import fuzz_runs  # noqa: F401
import pytest
from fuzz_reading import READERS

pytestmark = pytest.mark.medium

SAVED = Path(os.environ.get("LUTHIER_FUZZ_SAVED", "/tmp/luthier-fuzz"))


@pytest.fixture(scope="session")
def material(tmp_path_factory, tiny_folder):
    return fuzz_files.make(tmp_path_factory.mktemp("fuzz"), tiny_folder)


def case_of(name, material):
    read = READERS[name].read
    return lambda seed, folder: read(material, random.Random(f"{name} {seed}"), folder)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(name, material):
    ran = fuzz_child.run(name, case_of(name, material), range(READERS[name].quick), SAVED)
    print(ran)
    assert not ran.failures, "\n".join(map(str, ran.failures))
    assert ran.cases == READERS[name].quick and ran.taken + ran.refused == ran.cases, ran


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_of_today(name, material):
    seed = int(os.environ.get("LUTHIER_FUZZ_SEED") or date.today().toordinal())
    seconds = float(os.environ.get("LUTHIER_FUZZ_SECONDS") or 600) / len(READERS)
    began = time.monotonic()
    case = case_of(name, material)
    ran = fuzz_child.run(name, case, range(seed * 1_000_000, (seed + 1) * 1_000_000), SAVED, seconds=seconds)
    print(f"{ran}  in {time.monotonic() - began:.0f} s, LUTHIER_FUZZ_SEED={seed}")
    assert not ran.failures, "\n".join(map(str, ran.failures))
