"""Who asks, how much of it they may, and whose prefix cache they see."""
