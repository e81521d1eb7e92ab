"""Engines that run many independent tasks, and a ledger of what is done; they know nothing of bounds."""
