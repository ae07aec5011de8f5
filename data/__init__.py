"""Data: dataset cards (`cards`), manifests (`manifest`) and audio reading (`audio`); `sampler/` is embedded data."""
