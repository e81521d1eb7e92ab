"""Where inputs and weights may vary."""
