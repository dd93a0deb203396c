"""The source of clips: words in, labelled int16 waveforms with speakers and splits out."""
