"""The store: each clip goes through each codec once; what comes back lies here under the address of its contents."""
