"""`resonate eval`: clips, scores, distances, comparisons, reports."""
