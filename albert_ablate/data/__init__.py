"""From text to masked batches: corpus, sentences, tokenizer, token store, segment pairs, masks."""
