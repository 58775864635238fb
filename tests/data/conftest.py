"""Each test is told what it reads, though another told it before."""

import pytest

from luthier.core import log


@pytest.fixture(autouse=True)
def told_anew():
    log.once.cache_clear()
    log.warn_once.cache_clear()
