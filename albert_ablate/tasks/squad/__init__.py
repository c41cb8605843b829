"""SQuAD 1.1 and 2.0: questions, answer spans and their scores."""
