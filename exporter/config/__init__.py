"""What a user may say: the configuration file, read strictly, with an exact message for what is wrong."""
