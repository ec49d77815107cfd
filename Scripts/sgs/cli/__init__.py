"""The command lines: argparse, progress bars, exit codes. Only this package prints or exits; no logic lives here."""
