"""Remote chat models, against a server that fails in every way."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("openai")

from lang_agent import Decision, LangAgentError, LanguagePolicy
from lang_agent.agents.chat import ChatAgent, ChatConfig, answer_in, make_client
from lang_agent.agents.few_shot import FewShotAgent, as_examples
from lang_agent.cli import main as cli
from lang_agent.episode import Episode, Step, TextObservation
from lang_agent.errors import SpentError
from lang_agent.evaluation.records import Spec, read_results
from lang_agent.evaluation.run import TaskPlayer, evaluate_panel
from lang_agent.evaluation.tasks import Task
from lang_agent.models.decide import GENERATE, DecideConfig
from lang_agent.text_env.config import TextConfig

LEVEL = "BabyAI-MixedLocal-v0"
TASK = Task(LEVEL, "goto", {"task": "goto", "num_dists": 0, "max_steps": 6})
KEY = "sk-verysecretkey123456"


def reply(text, read=10, written=2):
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [choice], "usage": usage}  # fmt: skip


class Server(ThreadingHTTPServer):
    """Answers requests as ``plan`` says, one after another, and then always well."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.requests, self.at_once, self.most = [], [], 0, 0
        self.lock = threading.Lock()
        self.answer = "go forward"

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        pass  # a client that has hung up


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append({**body, "key": self.headers["Authorization"]})
            kind = server.plan.pop(0) if server.plan else "well"
            server.at_once += 1
            server.most = max(server.most, server.at_once)
        try:
            getattr(self, kind)(server)
        finally:
            with server.lock:
                server.at_once -= 1

    def send(self, status, data, headers=()):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def well(self, server):
        self.send(200, reply(server.answer))

    def slowly(self, server):
        time.sleep(0.2)
        self.well(server)

    def busy(self, server):
        self.send(429, {"error": {"message": "slow down"}}, [("Retry-After", "1")])

    def broken(self, server):
        self.send(500, {"error": {"message": f"internal, with {self.headers['Authorization']}"}})

    def hang(self, server):
        time.sleep(3)

    def cut(self, server):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"id": "1", "choi')
        self.close_connection = True

    def no_json(self, server):
        self.send(200, b"{this is no JSON")

    def no_message(self, server):
        self.send(200, {"id": "1", "choices": []})

    def empty(self, server):
        self.send(200, reply(""))

    def huge(self, server):
        self.send(200, reply("go forward" + " and on" * 1_500_000))

    def in_pieces(self, server):
        data = json.dumps(reply(server.answer)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(data), 7):
            part = data[at : at + 7]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()
            time.sleep(0.001)
        self.wfile.write(b"0\r\n\r\n")

    def refuse(self, server):
        self.send(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})


@pytest.fixture
def server():
    one = Server()
    thread = threading.Thread(target=one.serve_forever, daemon=True)
    thread.start()
    yield one
    one.shutdown()
    one.server_close()


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def config_of(server, tmp_path, **options):
    options = {"timeout": 0.8, "retries": 1, "reply_cache": str(tmp_path / "cache"), **options}
    return ChatConfig(base_url=server.url, **options)


def agent_of(server, tmp_path, **options):
    return ChatAgent("m", config=config_of(server, tmp_path, **options))


def ask(agent, prompt="Goal: go\nAction:", seed=0):
    agent.begin(0, seed)
    (decision,) = agent.act([0], [TextObservation(prompt, ("go forward", "turn left"))])
    return decision


def test_a_transcript_goes_out_as_turns_and_the_system_message_first(server, tmp_path):
    agent = agent_of(server, tmp_path)
    first = "Goal: go\nYou see a ball\nAction: "
    agent.begin(0, 1)
    (one,) = agent.act([0], [TextObservation(first, None, system="Be brief.")])
    assert (one.action, one.usage.read, one.usage.written) == ("go forward", 10, 2)
    agent.act([0], [TextObservation(f"{first}go forward\nYou see a key\nAction: ", None)])
    messages = server.requests[-1]["messages"]
    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Goal: go\nYou see a ball\nAction:"},
        {"role": "assistant", "content": "go forward"},
        {"role": "user", "content": "You see a key\nAction:"},
    ]
    agent.act([0], [TextObservation("Another prompt", None)])
    assert [m["role"] for m in server.requests[-1]["messages"]] == ["user"]
    assert server.requests[-1]["temperature"] == 0


@pytest.mark.parametrize(
    "kind", ["busy", "broken", "hang", "cut", "no_json", "no_message", "empty"]
)
def test_what_fails_once_is_asked_again(kind, server, tmp_path):
    server.plan = [kind]
    agent = agent_of(server, tmp_path)
    began = time.perf_counter()
    decision = ask(agent)
    assert (decision.action, decision.error) == ("go forward", "")
    assert len(server.requests) == 2
    if kind == "busy":
        assert time.perf_counter() - began >= 0.95  # as Retry-After says


@pytest.mark.parametrize("kind", ["broken", "cut", "no_json", "no_message", "empty"])
def test_what_always_fails_is_an_error_of_the_decision(kind, server, tmp_path):
    server.plan = [kind] * 20
    decision = ask(agent_of(server, tmp_path))
    assert decision.action == ""
    assert decision.error
    assert KEY not in decision.error
    assert not list((tmp_path / "cache").rglob("*.json"))


@pytest.mark.parametrize("kind", ["huge", "in_pieces"])
def test_a_large_reply_and_one_in_pieces_are_replies(kind, server, tmp_path):
    server.plan = [kind]
    decision = ask(agent_of(server, tmp_path, timeout=30))
    assert decision.action.startswith("go forward")
    assert len(decision.action) <= 20_000
    assert not decision.error


def test_a_key_that_is_refused_ends_it_and_is_not_shown(server, tmp_path):
    server.plan = ["refuse"]
    with pytest.raises(LangAgentError, match="refuses us") as caught:
        ask(agent_of(server, tmp_path))
    assert KEY not in str(caught.value)
    assert server.requests[0]["key"] == f"Bearer {KEY}"


def test_replies_are_kept_so_that_a_rerun_costs_nothing(server, tmp_path):
    ask(agent_of(server, tmp_path))
    again = agent_of(server, tmp_path)
    assert ask(again).action == "go forward"
    assert len(server.requests) == 1
    assert again.spent.read == 0
    ask(again, seed=1)  # the most likely reply is the same whoever asks
    assert len(server.requests) == 1
    for file in (tmp_path / "cache").rglob("*.json"):
        assert KEY not in file.read_text()
        file.write_text("{")
    assert ask(agent_of(server, tmp_path)).action == "go forward"
    assert len(server.requests) == 2


def test_replies_that_are_drawn_are_drawn_anew_by_episode_and_step(server, tmp_path):
    def drawn():
        decide = DecideConfig(GENERATE, temperature=0.7)
        return ChatAgent("m", decide, config_of(server, tmp_path))

    agent = drawn()
    for seed in (0, 1):
        agent.begin(0, seed)
        for _ in range(2):
            agent.act([0], [TextObservation("the same", ("go forward",))])
    assert len(server.requests) == 4
    ask(drawn(), "the same")
    assert len(server.requests) == 4


def test_requests_run_beside_one_another_within_bounds(server, tmp_path):
    server.plan = ["slowly"] * 12
    agent = agent_of(server, tmp_path, concurrency=4, timeout=5)
    for slot in range(12):
        agent.begin(slot, slot)
    seen = [TextObservation(f"prompt {slot}", ("go forward",)) for slot in range(12)]
    began = time.perf_counter()
    assert len(agent.act(range(12), seen)) == 12
    assert time.perf_counter() - began < 1.5
    assert 2 <= server.most <= 4


def evaluated(agent, folder, episodes=6):
    def make_env(task):
        return TextConfig().with_args(task.env_args).make(task.env)

    spec = Spec({"name": "chat", **agent.about}, (TASK,), 10**9, episodes)
    return evaluate_panel(spec, folder, TaskPlayer(agent, make_env, slots=2))


def test_a_budget_ends_the_evaluation_and_can_be_raised(server, tmp_path):
    with pytest.raises(SpentError, match="raise --budget-tokens"):
        evaluated(agent_of(server, tmp_path, budget_tokens=200), tmp_path / "r")
    assert len(server.requests) in (17, 18)  # of 12 tokens each, two at once
    some = read_results(tmp_path / "r")
    assert 0 < len(some.missing) < 6
    found = evaluated(agent_of(server, tmp_path), tmp_path / "r")
    assert not found.missing
    whole = evaluated(agent_of(server, tmp_path / "other"), tmp_path / "whole")
    assert [(r.seed, r.steps, r.total_reward, r.tokens_read) for r in found.records] == [
        (r.seed, r.steps, r.total_reward, r.tokens_read) for r in whole.records
    ]
    assert KEY not in "".join(f.read_text() for f in (tmp_path / "r").iterdir() if f.is_file())
    money = agent_of(server, tmp_path / "third", budget=0.0001, price_read=5, price_written=10)
    with pytest.raises(SpentError, match=r"budget of 0\.0001"):
        evaluated(money, tmp_path / "money")


def test_an_agent_that_fails_is_a_crash_of_the_episode(server, tmp_path):
    server.plan = ["well"] * 3 + ["broken"] * 2  # with one retry
    found = evaluated(agent_of(server, tmp_path), tmp_path / "r")
    assert [bool(record.error) for record in found.records].count(True) == 1
    (crashed,) = [record for record in found.records if record.error]
    assert "the agent gave no answer" in crashed.error
    assert not evaluated(agent_of(server, tmp_path), tmp_path / "r").missing


def test_a_server_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    config = ChatConfig("http://127.0.0.1:9", retries=0, reply_cache=str(tmp_path))
    assert "fails" in ask(ChatAgent("m", config=config)).error
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(LangAgentError, match="Set OPENAI_API_KEY"):
        make_client(ChatConfig())


def test_the_command_asks_a_server(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.run([
        "evaluate", "BabyAI-MixedLocal-v0 task=goto num_dists=0 max_steps=3", "--episodes", "2",
        "--agent", "chat:m", "--base-url", server.url, "--reply-cache", "cache", "--out", "r",
    ])  # fmt: skip
    results = read_results("r")
    assert results.spec.agent["model"] == "m"
    assert results.spec.agent["decide"]["decide"] == GENERATE
    assert all(record.tokens_read == 10 * record.steps for record in results.records)
    cli.run(["ask", "chat:m", "What now?", "--base-url", server.url, "--reply-cache", "cache"])
    assert capsys.readouterr().out.splitlines()[-1] == "go forward"


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("go forward", "go forward"),
        ("I see a ball.\nAction: turn left\nThen I go", "turn left"),
        ("Action: no\nAction:  pick   up ", "pick up"),
        ("Thought: x <|ACTION|>drop<|END|> done", "drop"),
        ("", ""),
    ],
)
def test_the_action_in_a_reply(text, action):
    assert answer_in(text) == action


def test_examples_stand_before_every_prompt(server, tmp_path):
    def episode(*turns):
        steps = [Step(TextObservation(p, ("a",)), Decision(a), 0.0, {}) for p, a in turns]
        return Episode(0, 0, steps)

    transcript = episode(
        ("Goal: x\nSee 1\nAction: ", "a"), ("Goal: x\nSee 1\nAction: a\nSee 2\nAction: ", "b")
    )
    window = episode(("See 1\nAction:", "a"), ("See 2\nAction:", "b"))
    assert as_examples([transcript]) == "Goal: x\nSee 1\nAction: a\nSee 2\nAction: b"
    assert as_examples([window]) == "See 1\nAction:a\n\nSee 2\nAction:b"
    agent = FewShotAgent(agent_of(server, tmp_path), as_examples([transcript]))
    agent.begin(0, 0)
    agent.act([0], [TextObservation("Goal: y\nAction: ", None)])
    (message,) = server.requests[-1]["messages"]
    content = message["content"]
    assert content.startswith("Examples")
    assert content.endswith("Goal: y\nAction:")
    assert "See 2\nAction: b" in content
    assert agent.about["examples"]


def test_a_chat_model_always_writes():
    agent = ChatAgent("m", DecideConfig(GENERATE, temperature=0.7), ChatConfig("http://x"))
    assert agent.about["decide"]["temperature"] == 0.7


TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A small chat model of our own, and the address of ``transformers serve`` with it."""
    for library in ("fastapi", "uvicorn"):
        pytest.importorskip(library)
    folder = tmp_path_factory.mktemp("served") / "model"
    texts = [
        f"user: see a {colour} {noun}\nassistant: go forward and turn left"
        for colour in ("red", "blue", "green")
        for noun in ("ball", "box", "key")
    ]
    policy = LanguagePolicy.from_scratch("nano", seed=3, texts=texts * 5, prose=True)
    policy.tokenizer.chat_template = TEMPLATE
    policy.save_pretrained(folder)
    (folder / "policy.json").unlink()  # a plain model's folder
    (folder / "value_head.safetensors").unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", folder]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    run = subprocess.Popen(
        [*map(str, command)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            assert run.poll() is None, "transformers serve has ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield folder, f"http://127.0.0.1:{port}/v1"
    finally:
        run.terminate()
        run.wait()


def test_a_model_says_the_same_here_and_through_transformers_serve(served, tmp_path):
    folder, url = served
    decide = DecideConfig(GENERATE, temperature=0, max_new_tokens=8)
    config = ChatConfig(url, timeout=60, retries=3, reply_cache=str(tmp_path))
    remote = ChatAgent(str(folder), decide, config)
    policy = LanguagePolicy.from_pretrained(folder)
    assert policy.codec.chat
    prompts = ["see a red ball", "see a blue key", "see a green box and a red key"]
    for at in range(3):
        remote.begin(at, at)
    answers = remote.act(range(3), [TextObservation(prompt, None) for prompt in prompts])
    texts = policy.generate(prompts, temperature=0, max_new_tokens=8)
    assert [answer.action for answer in answers] == [" ".join(text.split()) for text in texts]
    assert all(answer.usage.written == 8 for answer in answers)
