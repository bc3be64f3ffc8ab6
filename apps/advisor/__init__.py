"""Advice to a home: buy, sell or hold. Off consensus: it reads the chain, and never signs (docs/ADVISOR.md)."""
