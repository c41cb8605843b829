"""Question quality: Google QUEST Q&A labeling, several numbers from 0 to 1 for a question and an answer."""
