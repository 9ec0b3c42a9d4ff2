"""A segmenter's reports: figures by pixel and outline, probability of detection, comparisons."""
