from __future__ import annotations

import pytest

from rowserve.cache.memory_store import MemoryStore
from tests.cache.contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self):
        return MemoryStore(1024)
