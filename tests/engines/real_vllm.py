"""vLLM is an extra: its tests run where it is installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
