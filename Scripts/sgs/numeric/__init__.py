"""Integer types, rounding and requantisation: `docs/NUMERICS.md` in code."""
