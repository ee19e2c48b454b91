"""Training of the estimator and the f0 tracker, and adaptation of the estimator to recordings."""
