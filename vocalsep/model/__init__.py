"""The method of US: every voice is a source-filter model, and a network estimates its parameters.

In the order of the signal path:

* `features`: input of the network for one voice, from the mixture and the f0 of all voices;
* `estimator`: the network, which estimates the parameters of every voice;
* `synthesizer`: expected power spectrogram, and waveform, of voices with such parameters;
* `fitting`: parameters fitted to the recording;
* `masks`: soft masks from the expected powers, and stems.

References
----------
K. Schulze-Forster, G. Richard, L. Kelley, C. Doire, R. Badeau, "Unsupervised Music Source Separation Using
Differentiable Parametric Source Models", IEEE/ACM TASLP 2023, arXiv 2201.09592; called US in this package.
"""
