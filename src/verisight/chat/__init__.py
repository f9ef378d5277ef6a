"""Chat models that write or judge: over HTTP or on this machine."""
