"""Small tokenizers of the kinds that models come with, made of the same text."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXT = [
    "Goal: go to the red ball\nYou see a wall 3 steps left.\nAction: turn left\n"
    "You see a key!\nAction: go forward\nIt is naïve, said the 2 balls (and left).\n",
] * 20
SPECIAL = ["<unk>", "<s>", "</s>"]


def _trained(tokenizer: Tokenizer, trainer: trainers.Trainer, *, begin: bool, end: bool = False):
    tokenizer.train_from_iterator(TEXT, trainer)
    if begin or end:
        single = f"{'<s> ' if begin else ''}$A{' </s>' if end else ''}"
        pairs = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=pairs
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def _bpe(size: int = 400, *, alphabet: bool = False) -> trainers.Trainer:
    letters = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    return trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=letters, show_progress=False
    )


def metaspace(scheme: str, *, begin: bool) -> PreTrainedTokenizerFast:
    """Llama's and Mistral's, as newer files write them: a space before a text, or every part."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return _trained(tokenizer, _bpe(), begin=begin)


def llama2() -> PreTrainedTokenizerFast:
    """Llama 2's, as older files write it: a normalizer puts the space; bytes for the rest."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    base = Tokenizer(models.BPE(unk_token="<unk>"))
    base.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    base.pre_tokenizer = pre_tokenizers.Split(Regex("▁|\n"), behavior="merged_with_next")
    lines = [line for text in TEXT for line in text.split("\n")]  # a newline is a byte
    base.train_from_iterator(lines, _bpe(300))
    vocabulary = dict(base.get_vocab())
    for byte in bytes_:
        vocabulary[byte] = len(vocabulary)
    import json

    merges = [tuple(pair) for pair in json.loads(base.to_str())["model"]["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = base.normalizer
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def byte_level(*, prefix: bool = False, begin: bool = False) -> PreTrainedTokenizerFast:
    """GPT-2's kind; ``prefix``: with a space before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, _bpe(420, alphabet=True), begin=begin)


def llama3() -> PreTrainedTokenizerFast:
    """Llama 3's and Qwen's: a newline after punctuation belongs to it, and Unicode is composed."""
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, _bpe(420, alphabet=True), begin=True)


def unigram(*, end: bool) -> PreTrainedTokenizerFast:
    """T5's kind, but that it keeps newlines."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    return _trained(tokenizer, trainer, begin=False, end=end)


def wordpiece() -> PreTrainedTokenizerFast:
    """BERT's kind: lower case, words and punctuation, a token at both ends."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    return _trained(tokenizer, trainer, begin=True, end=True)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "a space before a text": lambda: metaspace("first", begin=True),
    "a space before every part": lambda: metaspace("always", begin=False),
    "Llama 2": llama2,
    "GPT-2's kind": byte_level,
    "GPT-2's kind with a beginning": lambda: byte_level(begin=True),
    "a space before bytes": lambda: byte_level(prefix=True, begin=True),
    "Llama 3": llama3,
    "Unigram": lambda: unigram(end=False),
    "Unigram with an end": lambda: unigram(end=True),
    "BERT's kind": wordpiece,
}
LOSSY = {"BERT's kind"}
"""What these decode is not the text that they encoded."""
