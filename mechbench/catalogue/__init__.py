"""Names to components: what there is, where it comes from and which options it takes. No torch."""
