"""What models are trained and scored on: streams, training sets, baselines, portraits."""
