from collections.abc import Iterator

import pytest

from truth import float64_throughout


@pytest.fixture
def in_float64() -> Iterator[None]:
    with float64_throughout():
        yield
