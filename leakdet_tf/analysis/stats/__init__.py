"""Statistics that every report needs: intervals, bounds of shares, tests of differences."""
