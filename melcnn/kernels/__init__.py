"""Our own kernels, and which of them or of torch's is the faster on this machine."""
