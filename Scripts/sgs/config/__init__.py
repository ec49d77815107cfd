"""What the user and the chip files say: input_config.ini and chips/*.ini, as frozen values."""
