"""A detector's reports: COCO's figures by box, sheets of pictures, comparisons."""
