"""`tiny`: a small neural codec trained for this project, weights included. Importing this imports no torch."""
