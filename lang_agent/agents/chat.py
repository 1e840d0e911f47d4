"""A remote chat model as an agent, through the ``openai`` client (extra ``chat``).

Any server that speaks OpenAI's chat completions will do: OpenAI's own, ``transformers serve``,
vLLM, llama.cpp. The client reads the key from ``OPENAI_API_KEY``; it stands in no record and no
message.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from lang_agent.episode import Agent, Decision, TextObservation, Usage
from lang_agent.errors import LangAgentError, SpentError
from lang_agent.files import write_whole
from lang_agent.models.decide import GENERATE, DecideConfig
from lang_agent.ranges import Range, check_ranges
from lang_agent.text_env.action_parser import MARKER, answer_part

MALFORMED = 3  # answers that are none, one after the other, before a decision is given up
REFUSED = (401, 403, 404)  # no key, or no such model: it would be so with every request
LONGEST = 20_000  # characters of an answer that are kept
_KEY = re.compile(r"\b(sk|key|Bearer)[-_ ][\w*.-]{6,}")


@dataclass(frozen=True)
class ChatConfig:
    """How a remote chat model is asked."""

    base_url: str | None = None
    """Of the server, as http://localhost:8000/v1; by default OPENAI_BASE_URL or OpenAI's."""
    concurrency: Annotated[int, Range(1, 1000)] = 8
    """Requests under way at once, at most."""
    timeout: Annotated[float, Range(high=86400, above=0)] = 120.0
    """Seconds for a reply."""
    retries: Annotated[int, Range(0, 100)] = 5
    """Of a request that failed (429, 5xx, no connection), later each time, or as the server says in
    Retry-After."""
    budget_tokens: Annotated[int, Range(1, 10**12)] | None = None
    """Tokens read and written, after which the evaluation ends; replies out of the cache are
    free. Raise it, and the same command goes on."""
    budget: Annotated[float, Range(high=10**9, above=0)] | None = None
    """The same in money, by the prices below."""
    price_read: Annotated[float, Range(0, 10**9)] = 0.0
    """Of a million tokens read."""
    price_written: Annotated[float, Range(0, 10**9)] = 0.0
    """Of a million tokens written."""
    reply_cache: str | None = None
    """The folder in which replies are kept; ~/.cache/lang_agent/replies by default."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.budget is not None and not (self.price_read or self.price_written):
            raise LangAgentError("A budget in money needs price_read and price_written.")


@dataclass
class _Conversation:
    """An episode as messages."""

    seed: int = 0
    asked: int = 0
    """How often, so that no two draws of an episode are one."""
    messages: list[dict[str, str]] = field(default_factory=list)
    read: str = ""
    """The prompt that the messages say, and the action after it."""


@dataclass(frozen=True)
class _Reply:
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    error: str = ""


class ChatAgent(Agent):
    """A chat model on a server.

    What a transcript adds is a message of the user, what was answered one of the assistant; any
    other prompt is one message. The template's ``system`` block, if it has one, comes first.

    Args:
        model: as the server calls it.
        decide: temperature and the most tokens of an answer; it is always written.
        client: an ``openai.OpenAI`` of your own.

    Raises:
        LangAgentError: without the extra, or without a key where the server is OpenAI's.
    """

    def __init__(
        self,
        model: str,
        decide: DecideConfig | None = None,
        config: ChatConfig | None = None,
        *,
        client: Any = None,
    ) -> None:
        if not model:
            raise LangAgentError("A chat model has a name: chat:MODEL, as the server calls it.")
        self.model, self.decide = model, decide or DecideConfig(GENERATE, temperature=0)
        self.config = config or ChatConfig()
        self._client = client or make_client(self.config)
        self._conversations: dict[int, _Conversation] = {}
        self._lock = threading.Lock()
        self.spent = Usage()
        folder = self.config.reply_cache or Path.home() / ".cache" / "lang_agent" / "replies"
        self._cache = Path(folder)
        self.about = {
            "server": str(self._client.base_url).rstrip("/"),
            "model": model,
            "decide": {
                "decide": GENERATE,
                "temperature": self.decide.temperature,
                "max_new_tokens": self.decide.max_new_tokens,
            },
        }

    def begin(self, slot: int, seed: int) -> None:
        self._conversations[slot] = _Conversation(seed)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        if not slots:
            return []
        for slot, seen in zip(slots, observations, strict=True):
            self._read(self._conversations[slot], seen)
        self._check_budget()
        with ThreadPoolExecutor(min(self.config.concurrency, len(slots))) as pool:
            replies = list(pool.map(self._ask, (self._conversations[slot] for slot in slots)))
        decisions = []
        for slot, seen, reply in zip(slots, observations, replies, strict=True):
            action = answer_in(reply.text)
            conversation = self._conversations[slot]
            conversation.messages.append({"role": "assistant", "content": reply.text})
            conversation.read = f"{seen.prompt}{action}\n"
            decisions.append(Decision(action, counted=reply.usage, error=reply.error))
        return decisions

    def _read(self, conversation: _Conversation, seen: TextObservation) -> None:
        """Go on with the messages to what the prompt says."""
        if conversation.read and seen.prompt.startswith(conversation.read):
            new = seen.prompt[len(conversation.read) :]
        else:
            system = {"role": "system", "content": seen.system}
            conversation.messages = [system] if seen.system else []
            new = seen.prompt
        conversation.messages.append({"role": "user", "content": new.strip()})

    def _check_budget(self) -> None:
        config, spent = self.config, self.spent
        tokens = spent.read + spent.written
        money = (spent.read * config.price_read + spent.written * config.price_written) / 1e6
        if config.budget_tokens is not None and tokens >= config.budget_tokens:
            raise SpentError(
                f"The budget of {config.budget_tokens} tokens is spent ({spent.read} read, "
                f"{spent.written} written): raise --budget-tokens to go on."
            )
        if config.budget is not None and money >= config.budget:
            raise SpentError(
                f"The budget of {config.budget:g} is spent ({money:.4f}): raise --budget to go on."
            )

    def _ask(self, conversation: _Conversation) -> _Reply:
        request = {
            "model": self.model,
            "messages": conversation.messages,
            "temperature": self.decide.temperature,
            "max_tokens": self.decide.max_new_tokens,
        }
        greedy = self.decide.temperature == 0
        drawn = [] if greedy else [conversation.seed, conversation.asked]
        conversation.asked += 1
        file = self._cache / _name(self.about["server"], drawn, request)
        known = _read_reply(file)
        if known is not None:
            return known
        reply = self._answer(request)
        if not reply.error:
            usage = {"read": reply.usage.read, "written": reply.usage.written}
            write_whole(file, json.dumps({"text": reply.text, **usage}, ensure_ascii=False))
        with self._lock:
            one = self.spent
            self.spent = Usage(one.read + reply.usage.read, one.written + reply.usage.written)
        return reply

    def _answer(self, request: dict[str, Any]) -> _Reply:
        """A reply from the server; of one that is none, asked again, the error."""
        import openai

        problem = ""
        read = written = 0
        for _ in range(MALFORMED):
            try:
                found = self._client.chat.completions.create(**request)
            except openai.OpenAIError as error:  # after the client's own retries
                if getattr(error, "status_code", 0) in REFUSED:
                    raise LangAgentError(f"The server refuses us: {_safe(error)}") from None
                return _Reply("", Usage(read, written), f"the server fails: {_safe(error)}")
            except ValueError as error:
                problem = f"a reply that is no JSON: {_safe(error)}"
                continue
            try:
                text = found.choices[0].message.content
                if found.usage is not None:
                    read += int(found.usage.prompt_tokens or 0)
                    written += int(found.usage.completion_tokens or 0)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                problem = f"a reply without a message: {_safe(error)}"
                continue
            if isinstance(text, str) and text.strip():
                return _Reply(text[:LONGEST], Usage(read, written))
            problem = "an empty reply"
        return _Reply("", Usage(read, written), f"{MALFORMED} times {problem}")


def make_client(config: ChatConfig) -> Any:
    """The client of ``openai``; raises :class:`LangAgentError` without the extra or a key."""
    try:
        import openai
    except ImportError:
        raise LangAgentError(
            "Chat models need the client of openai: pip install 'lang_agent[chat]'."
        ) from None
    url = config.base_url or os.environ.get("OPENAI_BASE_URL")
    key = os.environ.get("OPENAI_API_KEY")
    if not key and not url:
        raise LangAgentError("Set OPENAI_API_KEY, or --base-url to a server that needs none.")
    return openai.OpenAI(
        api_key=key or "none", base_url=url, timeout=config.timeout, max_retries=config.retries
    )


def answer_in(text: str) -> str:
    """The action in a reply, in one line: of what stands behind a marker, the first."""
    said = answer_part(text)
    return " ".join((said.partition("\n")[0] if MARKER in text else said).split())


def _name(server: str, drawn: Sequence[int], request: dict[str, Any]) -> str:
    """The file of a reply: of what was asked, and where replies are drawn, of which draw it is."""
    whole = json.dumps([server, *drawn, request], sort_keys=True)
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return f"{digest[:2]}/{digest[2:40]}.json"


def _read_reply(file: Path) -> _Reply | None:
    """A reply that was kept; a damaged one is asked for again."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        usage = Usage(int(data["read"]), int(data["written"]))
        return _Reply(str(data["text"]), usage)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _safe(error: Exception) -> str:
    """What an error says in one line, without anything that may be a key."""
    said = " ".join(str(error).split()) or type(error).__name__
    key = os.environ.get("OPENAI_API_KEY")
    said = said.replace(key, "***") if key else said
    return _KEY.sub("***", said)[:300]
