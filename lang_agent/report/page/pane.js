// One agent's episode at one step: the frame, what it read, might have said and said.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children); // texts are put in as texts: nothing of a world or model is read as HTML
  return made;
}

function paneFor(data, episode, at) {
  const agent = data.agents[episode.agent];
  const pane = element("article", { class: "pane" });
  pane.append(element("h3", {}, agent.label));
  pane.append(outcomeOf(episode));
  const trajectory = episode.trajectory;
  if (!trajectory) {
    if (!episode.error) pane.append(element("p", { class: "about" }, "Its steps were not kept."));
    return pane;
  }
  const number = Math.min(at, trajectory.steps.length);
  const over = number === trajectory.steps.length;
  const scene = element("div", { class: "scene" });
  const state = gridAt(trajectory, number);
  if (state) {
    const canvas = element("canvas", { role: "img", "aria-label": describeGrid(state) });
    drawGrid(canvas, state);
    scene.append(canvas);
  }
  const side = element("div", { class: "choices" });
  scene.append(side);
  pane.append(scene);
  if (over) {
    side.append(element("p", {}, `The episode is over after ${trajectory.steps.length} steps.`));
    return pane;
  }
  const step = trajectory.steps[number];
  side.append(factsOf(step), barsOf(step));
  if (step.written.length) pane.append(writtenOf(step));
  pane.append(promptOf(trajectory, number));
  return pane;
}

function outcomeOf(episode) {
  const parts = [];
  if (episode.error) parts.push(`ended by an error: ${episode.error}`);
  else parts.push(episode.success ? "success" : "failure");
  if (episode.progression && ![0, 1].includes(episode.progression)) {
    parts.push(`progression ${episode.progression.toFixed(3)}`);
  }
  parts.push(`return ${(episode.total_reward ?? 0).toFixed(3)}`, `${episode.steps ?? 0} steps`);
  if (episode.expert_steps) parts.push(`the expert takes ${episode.expert_steps}`);
  const mission = episode.mission ? `“${episode.mission}”: ` : "";
  return element("p", { class: episode.success ? "good" : "bad" }, mission + parts.join(", "));
}

function factsOf(step) {
  const facts = element("dl", { class: "facts" });
  const add = (name, value) => facts.append(element("dt", {}, name), element("dd", {}, value));
  add("said", step.action || "(nothing)");
  if (step.verdict) add("verdict", step.reason ? `${step.verdict}: ${step.reason}` : step.verdict);
  add("reward", step.reward.toFixed(3));
  if (step.value !== undefined) add("value", step.value.toFixed(3));
  if (step.expert) add("expert", step.expert === step.action ? `the same` : step.expert);
  return facts;
}

function barsOf(step) {
  const bars = element("ol", { class: "bars", "aria-label": "Probability of every phrase" });
  (step.actions ?? []).forEach((phrase, index) => {
    const share = step.probabilities[index];
    const said = phrase === step.action;
    const marks = [said ? "▸ " : "", phrase, phrase === step.expert ? " (expert)" : ""].join("");
    const row = element("li", said ? { class: "said" } : {}, element("span", {}, marks));
    if (share !== undefined) {
      const fill = element("span", { class: "fill" });
      fill.style.width = `${100 * share}%`;
      row.append(element("span", { class: "track" }, fill));
      row.append(element("span", { class: "number" }, share.toFixed(3)));
    }
    bars.append(row);
  });
  return bars;
}

// A written answer, token by token: the line below says how likely each was.
function writtenOf(step) {
  const text = element("p", { class: "written", "aria-label": "Tokens of the answer" });
  let total = 0;
  for (const token of step.written) {
    const likely = Math.exp(token.log_prob);
    const kind = likely > 0.9 ? "sure" : likely > 0.4 ? "likely" : likely < 0.05 ? "rare" : "";
    const title = `${JSON.stringify(token.text)}: probability ${likely.toFixed(3)}`;
    text.append(element("span", { class: kind, title }, token.text));
    total += token.log_prob;
  }
  const count = step.written.length;
  const mean = `${count} tokens, log-probability ${(total / count).toFixed(2)} each`;
  return element("div", {}, element("h4", { class: "hidden" }, "Written"), text,
    element("small", {}, mean));
}

// The prompt, with what is new in it marked, and what moved the choice underlined.
function promptOf(trajectory, number) {
  const { kept, text } = promptsOf(trajectory)[number];
  const box = element("pre", { class: "prompt", tabindex: "0", "aria-label": "Prompt" });
  const explained = trajectory.steps[number].explained ?? [];
  const letters = Array.from(text);
  const border = Array.from(kept).length;
  const cuts = new Set([0, border, letters.length]);
  for (const [begin, end] of explained) cuts.add(begin).add(end);
  const places = [...cuts].sort((a, b) => a - b);
  for (let i = 0; i + 1 < places.length; i++) {
    const part = letters.slice(places[i], places[i + 1]).join("");
    const moved = explained.find(([begin, end]) => begin <= places[i] && places[i + 1] <= end);
    const change = moved ? moved[2] : 0;
    let node = element("span", {}, part);
    if (Math.abs(change) >= 0.02) {
      node.className = change > 0 ? "toward" : "against";
      node.title = `Without this what was said would be ${Math.abs(change).toFixed(3)} ` +
        (change > 0 ? "less likely" : "more likely");
    }
    if (places[i] >= border && border > 0) node = element("mark", {}, node);
    box.append(node);
  }
  const wrapper = element("div", {}, box);
  if (explained.length) wrapper.prepend(explanationOf(letters, explained));
  return wrapper;
}

function explanationOf(letters, explained) {
  const most = [...explained].sort((a, b) => Math.abs(b[2]) - Math.abs(a[2])).slice(0, 5);
  const list = element("ol", { class: "bars" });
  for (const [begin, end, change] of most.filter(([, , size]) => Math.abs(size) >= 0.005)) {
    const line = letters.slice(begin, end).join("").trim();
    const number = `${change > 0 ? "+" : "−"}${Math.abs(change).toFixed(3)}`;
    const fill = element("span", { class: "fill" });
    fill.style.width = `${100 * Math.abs(change)}%`;
    list.append(element("li", {}, element("span", {}, line),
      element("span", { class: "track" }, fill), element("span", { class: "number" }, number)));
  }
  const title = list.children.length
    ? "What moved the choice: how much likelier each part of the prompt makes what was said"
    : "No single part of the prompt moves the choice";
  return element("div", {}, element("p", { class: "about" }, title), list);
}
