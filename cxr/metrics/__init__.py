"""Figures: of classification, their intervals, calibration, thresholds, and what was published."""
