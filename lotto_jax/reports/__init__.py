"""results.csv to tables, figures, grids and report.html."""
