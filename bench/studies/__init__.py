"""The project's proofs about itself. Nothing imports them, and the wheel leaves them out."""
