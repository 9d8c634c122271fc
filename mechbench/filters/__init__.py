"""Filter families of the Hyena recurrence, one file each: modules that give (N, D, L) taps."""
