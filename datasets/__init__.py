"""Videos and texts: annotation files become records, records become batches."""
