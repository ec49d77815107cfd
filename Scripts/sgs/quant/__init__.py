"""Calibration: statistics → ranges → precision → plan → fixed graph. Deciding is separate from editing."""
