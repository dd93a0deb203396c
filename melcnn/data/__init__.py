"""Where clips come from: words in, labelled int16 waveforms with speakers and splits out."""
