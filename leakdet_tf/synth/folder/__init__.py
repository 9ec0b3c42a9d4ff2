"""A folder of rendered pictures: what it is asked to hold, who renders it, and how it is written."""
