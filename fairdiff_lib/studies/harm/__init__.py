"""Harm by group: calibration, missed patients, asked against shown."""
