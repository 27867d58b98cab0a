"""The organism's tokenizer: one token per word or punctuation mark, with a chat template."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiltmeter.organism.grammar import World, every_text

PAD, UNKNOWN, BEGIN, END = "<|pad|>", "<|unknown|>", "<|begin|>", "<|end|>"
USER, ASSISTANT = "<|user|>", "<|assistant|>"
_SPECIAL = (PAD, UNKNOWN, BEGIN, END, USER, ASSISTANT)
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MAX_LENGTH = 256

# A space belongs to the word after it, a line break to the indentation after it: decoding is plain joining.
_PIECE = Regex(r"\n▁*|▁?[\w']+|▁?[^\w\s▁]|▁")


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    spaces = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    return pre_tokenizers.Sequence([spaces, pre_tokenizers.Split(_PIECE, behavior="isolated")])


def _vocabulary(world: World, splitter: pre_tokenizers.PreTokenizer) -> dict[str, int]:
    words = {piece for text in every_text(world) for piece, _ in splitter.pre_tokenize_str(text)}
    return {token: index for index, token in enumerate((*_SPECIAL, *sorted(words)))}


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """The tokenizer of a world's language; any other word becomes the unknown token."""
    splitter = _pre_tokenizer()
    tokenizer = Tokenizer(models.WordLevel(_vocabulary(world, splitter), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        model_max_length=MAX_LENGTH,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
