"""An institution's side of secure sums (PSA-1): a study's set-up, the four calls of each sum, and their secrets at rest."""
