"""Baselines that separation is measured against."""
