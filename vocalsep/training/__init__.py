"""Training of the parameter estimator: from mixtures alone, or from random mixtures of single singers."""
