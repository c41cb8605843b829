"""Zero-, one- and few-shot evaluation: prompts, and the log-probabilities of their options."""
