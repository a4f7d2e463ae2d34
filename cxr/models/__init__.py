"""What makes a model of this project: its recipe, restoring it, converting it, transfer learning."""
