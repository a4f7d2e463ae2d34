"""Does the map point at the finding: measures, the benchmark on expert boxes, shortcuts."""
