"""What several tests share: stand-ins, records made up, clocks that a test moves."""
