"""From a recording to its stems: in memory or on disk, at any length."""
