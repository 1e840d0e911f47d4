"""Run outside the checkout against the installed wheel: what a new user would do first."""

import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path

import lang_agent

slow = {"torch", "minigrid", "pygame", "gymnasium"}
assert not slow & set(sys.modules), "import lang_agent must be quick"

rooms = ("agents", "bridges", "cli", "envs", "evaluation", "learn", "models", "prompts", "recipes",
         "rewards", "text_env", "train")  # fmt: skip
for name in rooms:
    room = import_module(f"lang_agent.{name}")
    assert "site-packages" in str(Path(room.__file__)), room
assert "torch" not in sys.modules, "the worlds must load without torch"
assert (Path(lang_agent.__file__).parent / "py.typed").exists()
shipped = [str(file) for file in distribution("lang_agent").files or ()]
assert any(file.endswith("licenses/LICENSE") for file in shipped)
assert not any(file.startswith(("tests", "docs")) for file in shipped)

assert lang_agent.parse_action("trun left", ["turn left"]).verdict == "near"

env = lang_agent.make("BabyAI-GoToLocal-v0", prompt="glam")
prompt, info = env.reset(seed=0)
assert prompt.endswith("Action 0: ")


def lang_agent_command(*arguments: str) -> str:
    run = subprocess.run(["lang-agent", *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


assert "MixedLocal" in lang_agent_command("envs")
assert "tokens" in lang_agent_command("prompt", "BabyAI-GoToLocal-v0")
lang_agent_command(
    "train", "--env", "BabyAI-GoToRedBallNoDists-v0", "--steps", "300", "--rollout-steps", "100",
    "--eval-episodes", "4", "--envs", "4", "--out", "run",
)  # fmt: skip
assert "success" in lang_agent_command(
    "evaluate", "BabyAI-GoToRedBallNoDists-v0", "--agent", "run", "--episodes", "4"
)
assert "1.000" in lang_agent_command(
    "evaluate", "BabyAI-MixedLocal-v0", "--agent", "babyai", "--episodes", "6",
    "--env-args", "task=goto", "num_dists=0",
)  # fmt: skip
assert "pick_up_seq_go_to" in lang_agent_command("suites", "balrog-babyai")
for agent in ("random", "expert"):
    lang_agent_command(
        "evaluate", "--suite", "glam", "--agent", agent, "--episodes", "2", "--out", agent,
        "--trajectories",
    )  # fmt: skip
assert "expert" in lang_agent_command("compare", "random", "expert")
assert "14 of 14" in lang_agent_command("replay", "expert")

# A program that uses the package is checked as strictly as its author likes.
strict = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "typed_use.py"]
subprocess.run(strict, check=True)
if shutil.which("pyright"):
    subprocess.run(["pyright", "--pythonpath", sys.executable, "typed_use.py"], check=True)
else:
    print("pyright is not installed here: typed_use.py was checked by mypy alone.")
print("The wheel works outside the checkout.")
