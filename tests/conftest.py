"""Settings of all tests: Hypothesis tries the same examples in every run, so that a run tells of the change alone."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
