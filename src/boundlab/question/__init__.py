"""What is asked: queries in exact numbers, and the files that state them. Nothing here knows torch."""
