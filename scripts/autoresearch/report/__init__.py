"""What a human reads on return: a campaign as numbers, and the numbers as text."""
