"""Evaluation: metrics, baselines, and the benchmark on the development split."""
