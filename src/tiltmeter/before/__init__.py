"""What can be told before training: of a data set, of a skill, of single examples."""
