"""Vision-language models: encoding, scoring, sampling, hiding image tokens."""
