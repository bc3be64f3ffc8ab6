"""The operator's bill of a prosumer: what tokens did not cover, in exact decimals, with proofs of every reading."""
