"""Where things lie and what they rest on: files, places, stamps."""
