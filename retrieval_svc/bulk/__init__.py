"""Collections built in bulk: read, split, embed, record, index, publish; resumable, in bounded memory, all of it or nothing."""
