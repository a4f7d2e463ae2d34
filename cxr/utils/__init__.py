"""Files, threads, processes and progress bars."""
