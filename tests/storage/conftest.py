"""Storage tests show the difference when an assertion of the public contract fails."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("pybernetes.testing.store_contract")
