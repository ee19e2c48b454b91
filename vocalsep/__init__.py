"""Take a recording of a choir or vocal ensemble apart into its voices."""

__version__ = "0.1.0.dev0"
