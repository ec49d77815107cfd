"""What `calibrator_custom` offers. Every error that a caller can cause is a ValueError that says what was expected and
what was got."""
