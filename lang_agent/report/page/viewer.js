// The state of the viewer: the pair that is looked at, the step, and whether it plays.

class Viewer {
  constructor(data) {
    this.data = data;
    this.pairs = [];
    this.at = 0;
    this.timer = null;
  }

  get pair() {
    const place = control("list").value;
    return this.pairs.find(({ episode }) => placeOf(episode) === place);
  }

  get length() {
    const { episode, other } = this.pair ?? {};
    const steps = [episode, other].map((one) => one?.trajectory?.steps.length ?? 0);
    return Math.max(...steps);
  }

  // List what the filters let through, and stay at the episode where that is among them.
  list() {
    const before = control("list").value;
    this.pairs = filtered(this.data);
    fillList(this.pairs);
    const known = this.pairs.some(({ episode }) => placeOf(episode) === before);
    control("list").value = known ? before : this.pairs.length ? placeOf(this.pairs[0].episode) : "";
    this.open(known ? this.at : 0);
  }

  open(at = 0) {
    this.pause();
    control("player").hidden = !this.pair;
    if (!this.pair) return;
    control("step").max = this.length;
    this.show(at);
  }

  show(at) {
    if (!this.pair) return;
    this.at = Math.max(0, Math.min(at, this.length));
    const { episode, other } = this.pair;
    const panes = [episode, other].filter(Boolean).map((one) => paneFor(this.data, one, this.at));
    control("panes").replaceChildren(...panes);
    for (const box of control("panes").querySelectorAll(".prompt")) box.scrollTop = box.scrollHeight;
    control("step").value = this.at;
    const over = this.at === this.length;
    const position = over ? `end, ${this.length} steps` : `step ${this.at + 1} of ${this.length}`;
    control("position").textContent = position;
    control("step").setAttribute("aria-valuetext", position);
    if (!this.timer) control("said").textContent = this.spoken();
    writeLink(this.link());
  }

  // What a screen reader says of a step.
  spoken() {
    const step = this.pair.episode.trajectory?.steps[this.at];
    if (!step) return control("position").textContent;
    return `Step ${this.at + 1}: said ${step.action}, ${step.verdict ?? ""}, reward ${step.reward}`;
  }

  move(by) {
    this.pause();
    this.show(this.at + by);
  }

  moveEpisode(by) {
    const list = control("list");
    const index = Math.max(0, Math.min(list.selectedIndex + by, list.options.length - 1));
    if (index === list.selectedIndex) return;
    list.selectedIndex = index;
    this.open();
  }

  toggle() {
    if (this.timer) return this.pause();
    if (this.at >= this.length) this.show(0);
    this.timer = setInterval(() => {
      if (this.at >= this.length) this.pause();
      else this.show(this.at + 1);
    }, Number(control("speed").value));
    this.label(true);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.label(false);
  }

  label(playing) {
    control("play").textContent = playing ? "Pause" : "Play";
  }

  link() {
    const { episode } = this.pair;
    const parts = { agent: control("agent").value, beside: control("beside").value,
      task: episode.task, seed: episode.seed, step: this.at };
    return new URLSearchParams(parts).toString();
  }

  // Go to the step that the address names; false where it names none of this page.
  follow(hash) {
    const wanted = new URLSearchParams(hash.replace(/^#/, ""));
    const agent = wanted.get("agent");
    if (!wanted.get("seed") || !this.data.agents[Number(agent)]) return false;
    for (const id of ["outcome", "task"]) control(id).value = "";
    for (const id of ["invalid", "differ"]) control(id).checked = false;
    control("agent").value = agent;
    fillBeside(this.data);
    control("beside").value = wanted.get("beside") ?? "";
    if (control("beside").selectedIndex < 0) control("beside").value = "";
    fillBeside(this.data);
    this.pairs = filtered(this.data);
    fillList(this.pairs);
    control("list").value = `${wanted.get("task")}/${wanted.get("seed")}`;
    if (control("list").selectedIndex < 0) return false;
    this.open(Number(wanted.get("step")) || 0);
    return true;
  }
}

function writeLink(link) {
  history.replaceState(null, "", `#${link}`);
}
