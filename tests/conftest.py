"""For all tests: Hypothesis looks for wrong answers, not at the clock of a busy machine; and the examples' key."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("hubbub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hubbub")

os.environ["JWT_KEY"] = "a key of the tests, which the examples take from the environment"
