"""Key figures of homes and their community, out of the indexer's tables (docs/KPI.md)."""
