"""What a model looked at: attention weights by tile (docs/attention.md)."""
