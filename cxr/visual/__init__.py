"""What people look at: heat maps, charts, picture files, fonts."""
