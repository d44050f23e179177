"""Corpora: the documents in files of JSON lines, Parquet, text, Markdown, HTML and PDF, here or in an object store.

    with Corpus.of(["data/", "more/*.jsonl.gz", "s3://bucket/wiki/*.parquet"]) as corpus:
        for found in corpus:  # A CorpusRecord, or a BadRecord that says where and why.
            ...

Read as a stream, in a stable order, with memory that does not grow with the corpus. What is bad is told and the rest goes on.
"""

from penstock.corpora.corpus import Corpus as Corpus
from penstock.corpora.files import CorpusFile as CorpusFile
from penstock.corpora.records import BadRecord as BadRecord
from penstock.corpora.records import CorpusRecord as CorpusRecord
from penstock.corpora.records import ReadingOptions as ReadingOptions
