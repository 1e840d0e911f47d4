// Which episodes are listed, and which one of them is looked at.

const control = (id) => document.getElementById(id);
const placeOf = (episode) => `${episode.task}/${episode.seed}`;

function fillFilters(data) {
  const options = data.agents.map((agent, index) => [agent.group, agent.label, String(index)]);
  fillSelect(control("agent"), options);
  fillSelect(control("task"), [["", "all", ""], ...tasksOf(data).map((task) => ["", task, task])]);
  fillBeside(data);
}

function tasksOf(data) {
  return [...new Set(data.episodes.map((episode) => episode.task))];
}

// Who can stand beside the agent: those that played the same panel.
function fillBeside(data) {
  const own = Number(control("agent").value);
  const before = control("beside").value;
  const panel = data.agents[own].panel;
  const others = data.agents
    .map((agent, index) => [agent.group, agent.label, String(index), agent.panel])
    .filter(([, , index, played]) => Number(index) !== own && played === panel);
  fillSelect(control("beside"), [["", "nobody", ""], ...others]);
  if (others.some(([, , index]) => index === before)) control("beside").value = before;
  control("differ").disabled = control("beside").value === "";
  if (control("differ").disabled) control("differ").checked = false;
}

function fillSelect(select, options) {
  const groups = new Map();
  select.replaceChildren();
  for (const [group, label, value] of options) {
    const option = element("option", { value }, label);
    if (!group) {
      select.append(option);
      continue;
    }
    if (!groups.has(group)) {
      groups.set(group, element("optgroup", { label: group }));
      select.append(groups.get(group));
    }
    groups.get(group).append(option);
  }
}

function episodesOf(data, agent) {
  return data.episodes.filter((episode) => episode.agent === Number(agent));
}

// The episodes that the filters let through, each with the other agent's on the same seed.
function filtered(data) {
  const beside = control("beside").value;
  const others = new Map(
    beside === "" ? [] : episodesOf(data, beside).map((episode) => [placeOf(episode), episode]),
  );
  const outcome = control("outcome").value;
  const task = control("task").value;
  return episodesOf(data, control("agent").value)
    .map((episode) => ({ episode, other: others.get(placeOf(episode)) }))
    .filter(({ episode, other }) => {
      if (task && episode.task !== task) return false;
      if (outcome === "failure" && episode.success) return false;
      if (outcome === "success" && !episode.success) return false;
      if (outcome === "error" && !episode.error) return false;
      if (control("invalid").checked && !episode.invalid_actions) return false;
      return !control("differ").checked || (other && other.success !== episode.success);
    });
}

function fillList(pairs) {
  const list = control("list");
  const single = new Set(pairs.map(({ episode }) => episode.task)).size === 1;
  list.replaceChildren();
  for (const { episode, other } of pairs) {
    const marks = [episode, other].filter(Boolean).map((one) => (one.success ? "✓" : "✗"));
    const task = single ? "seed" : episode.task;
    const label = `${marks.join(" ")}  ${task} ${episode.seed}`;
    list.append(element("option", { value: placeOf(episode) }, label));
  }
  control("count").textContent = pairs.length === 1 ? "1 episode" : `${pairs.length} episodes`;
}
