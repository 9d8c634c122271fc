"""The catalogue of components: their names, where they come from, and their options. No torch."""
