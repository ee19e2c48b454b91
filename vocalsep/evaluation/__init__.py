"""How good separation and tracking are: metrics, baselines, and the benchmarks of `vocalsep bench`."""
