"""Comparing methods: which runs a comparison is made of, and what came of them. No Ray."""
