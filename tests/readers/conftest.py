from hypothesis import settings

# Shared machines stall: what takes long is measured in processor time, by the tests themselves.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
