"""Programs and settings that exist only because XLA is slow on CPUs."""
