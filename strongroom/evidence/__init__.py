"""What a machine says of itself: parsed and packed, neither believed nor judged."""
