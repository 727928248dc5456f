from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.wire.certificates import Certificates

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory: Path = tmp_path_factory.mktemp("certificates")
    return Certificates(directory)
