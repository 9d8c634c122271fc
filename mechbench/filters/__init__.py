"""Filter families of the Hyena recurrence, one file each: modules that return (N, D, L) taps."""
