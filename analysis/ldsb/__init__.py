"""What readers of the LDSB paper ask of a study that fitted paths: tables, sentences, and what figures are made of."""
