"""Numbers with their uncertainty: numpy, pandas and scipy; no network, no disk, no simulator."""
