"""From a recording to its stems."""
