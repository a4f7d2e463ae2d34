"""How good a model is: sections of the report, comparisons, stored predictions, and whether the split is fair."""
