"""What the scripts share while running; one topic a module, nothing here knows the command line but `engine.cli`."""
