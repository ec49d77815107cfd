"""What the simulator makes of outputs: classes and boxes, files and drawings of them, and how right they are."""
