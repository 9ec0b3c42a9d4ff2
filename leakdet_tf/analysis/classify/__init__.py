"""A classifier's reports: figures by picture, calibration, and the matrix of models and test sets."""
