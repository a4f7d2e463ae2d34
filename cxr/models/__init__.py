"""What makes a model of this house: its recipe, restoring it, converting it, transfer learning."""
