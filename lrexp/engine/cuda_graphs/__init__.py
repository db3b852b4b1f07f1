"""Steps recorded once as a CUDA graph and launched together from then on."""
