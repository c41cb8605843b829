"""What a run is: its typed, frozen settings, what they may hold, and what makes two runs the same."""
