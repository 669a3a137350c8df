"""From a file to batches: records, formats, splits, templating, masking, collation."""
