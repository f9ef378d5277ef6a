"""Files, pictures and rows: what comes in is checked here, what goes out is written here. No torch."""
