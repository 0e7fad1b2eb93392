"""Settings of the property tests: no time limit for an example, which would fail on a busy machine."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
