"""LangFlow and lfx from PyPI, each in an environment of its own, serving the flow that Penstock imports.

    langflow_part -> environments (install) -> servers (start, upload, one answer)

chat_model.json is an export of LangFlow 1.13.0: ChatInput -> Prompt -> OpenAI -> ChatOutput, with the source of LangFlow's
components (MIT licence) in it, as in every export.
"""
