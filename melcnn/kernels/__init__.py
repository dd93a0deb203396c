"""Our own kernels, and the choice between them and torch's on this machine."""
