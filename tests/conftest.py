"""Fixtures shared by all tests, and how hard hypothesis tries."""

from __future__ import annotations

import os
import secrets

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from reference import ROOT, Array

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when it is imported; tests call nobody

# Chosen with --hypothesis-profile=slow. A deadline would only measure the machine.
_patient = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "default",
    max_examples=100,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=_patient,
)
settings.register_profile(
    "slow", max_examples=1000, stateful_step_count=60, deadline=None, suppress_health_check=_patient
)
settings.load_profile("default")


@pytest.fixture
def seed() -> int:
    """A new seed in every run, printed with a failure; OMENDB_TEST_SEED brings it back."""
    chosen = int(os.environ.get("OMENDB_TEST_SEED") or secrets.randbits(32))
    print(f"OMENDB_TEST_SEED={chosen}")
    return chosen


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """Random numbers from `seed`."""
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def debian_packages() -> Array:
    """Real text embeddings, shape (63666, 384), float16; skips where they are not at hand."""
    path = ROOT.parent / "shared" / "data" / "debian-packages" / "vectors.npy"
    if not path.exists():
        pytest.skip(f"the data set {path.name} is not beside the repository")
    vectors: Array = np.load(path)
    return vectors
