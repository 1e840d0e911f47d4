// The episodes as the page carries them (lang_agent/report/episodes.py), and reading them.

async function readData() {
  const packed = document.getElementById("data").textContent.trim();
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = await new Response(plain).json();
  for (const episode of data.episodes) {
    episode.success = episode.success || false;
    episode.error = episode.error || "";
    for (const step of episode.trajectory?.steps ?? []) {
      if (step.actions !== undefined) step.actions = data.phrases[step.actions];
      step.probabilities = step.probabilities ?? [];
      step.written = step.written ?? [];
      step.reward = step.reward ?? 0;
      step.action = step.action ?? "";
    }
  }
  return data;
}

// The first `count` characters as Python counts them: a pair of surrogates is one.
function firstCharacters(text, count) {
  if (!/[\ud800-\udfff]/.test(text)) return text.slice(0, count);
  return Array.from(text).slice(0, count).join("");
}

// The prompt of every step, put together again: what it keeps of the one before, and what is new.
function promptsOf(trajectory) {
  let before = "";
  trajectory.prompts ??= trajectory.steps.map((step) => {
    const kept = firstCharacters(before, step.kept);
    before = kept + step.new;
    return { kept, text: before };
  });
  return trajectory.prompts;
}

// The grid before step `at`, or after the last one, from the changes since the first.
function gridAt(trajectory, at) {
  const states = [...trajectory.steps.map((step) => step.cells), trajectory.end];
  let grid = null;
  for (const state of states.slice(0, at + 1)) {
    if (!state) continue;
    if (state.grid) {
      grid = { ...state, grid: state.grid.slice() };
    } else if (grid) {
      for (const [cell, ...codes] of state.changed) grid.grid.splice(3 * cell, 3, ...codes);
      grid = { ...grid, agent: state.agent, carrying: state.carrying };
    }
  }
  return grid;
}
