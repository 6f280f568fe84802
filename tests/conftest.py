"""For all tests: Hypothesis looks for wrong answers, and not at the clock of a machine that is busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("hubbub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hubbub")
