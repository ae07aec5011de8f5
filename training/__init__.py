"""How our own codec was trained and measured. Nothing imports this."""
