"""Reports: the score record and its store (`scores`), and their views (tables, Allure). Output goes to reports/out/."""
