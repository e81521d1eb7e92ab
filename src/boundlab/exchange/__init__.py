"""Networks and questions as files that other tools read."""
