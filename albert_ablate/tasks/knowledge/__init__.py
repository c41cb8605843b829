"""Facts beside the texts of a task (K-BERT): their table, their mentions in a text, and where they stand."""
