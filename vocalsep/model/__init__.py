"""The method of the paper: features, estimator, synthesizer, fitting, masks."""
