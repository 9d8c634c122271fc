"""One model from configuration to stored result."""
