"""What each command does from end to end."""
