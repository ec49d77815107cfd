"""Post-processing networks: what scripts of the user add behind a backbone."""
