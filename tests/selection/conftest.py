from hypothesis import settings

# Shared machines stall: a slow example says nothing about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
