"""What all tests share: hypothesis looks for wrong results, not for slow ones, since machines under test are busy."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
