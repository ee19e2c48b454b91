"""Signal processing on arrays and tensors: short-time Fourier transform, walks over long signals, units."""
