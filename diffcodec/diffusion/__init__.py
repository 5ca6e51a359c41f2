"""The forward and reverse process: schedules, transitions, KL, pixel likelihood. NumPy, float64."""
