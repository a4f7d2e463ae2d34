"""Pictures of many images, and what is written beside them for other systems."""
