"""What a person sees while waiting: bars, trackers, signals."""
