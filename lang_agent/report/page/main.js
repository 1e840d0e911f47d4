// Where the page begins: the theme, the episodes, and what every control and key does.

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  document.getElementById("theme").textContent = name === "dark" ? "Light" : "Dark";
}

function connect(viewer) {
  const on = (id, event, act) => control(id).addEventListener(event, act);
  on("filters", "submit", (event) => event.preventDefault());
  on("agent", "change", () => { fillBeside(viewer.data); viewer.list(); });
  on("beside", "change", () => { fillBeside(viewer.data); viewer.list(); });
  for (const id of ["task", "outcome", "invalid", "differ"]) on(id, "change", () => viewer.list());
  on("list", "change", () => viewer.open());
  on("first", "click", () => viewer.move(-Infinity));
  on("back", "click", () => viewer.move(-1));
  on("next", "click", () => viewer.move(1));
  on("last", "click", () => viewer.move(Infinity));
  on("play", "click", () => viewer.toggle());
  on("step", "input", () => { viewer.pause(); viewer.show(Number(control("step").value)); });
  on("speed", "change", () => { if (viewer.timer) { viewer.pause(); viewer.toggle(); } });
  on("link", "click", () => copyLink());
  addEventListener("hashchange", () => viewer.follow(location.hash));
  document.addEventListener("keydown", (event) => onKey(event, viewer));
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    control("said").textContent = "The link is copied";
    control("link").textContent = "Copied";
  } catch {
    prompt("The link to this step", location.href);
  }
  setTimeout(() => { control("link").textContent = "Copy a link to this step"; }, 2000);
}

function onKey(event, viewer) {
  if (event.altKey || event.ctrlKey || event.metaKey || control("player").hidden) return;
  const within = event.target.closest("select, input, textarea");
  if (within || (event.key === " " && event.target.closest("button, summary, a"))) return;
  const scrolls = event.target.closest(".prompt, .wide") && ["Home", "End"].includes(event.key);
  if (scrolls) return;
  const acts = {
    ArrowLeft: () => viewer.move(-1),
    ArrowRight: () => viewer.move(1),
    Home: () => viewer.move(-Infinity),
    End: () => viewer.move(Infinity),
    " ": () => viewer.toggle(),
    "[": () => viewer.moveEpisode(-1),
    "]": () => viewer.moveEpisode(1),
  };
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
}

// A page of a run that goes on loads itself anew, but not while an episode plays.
function reloadSoon(viewer) {
  const seconds = Number(document.body.dataset.refresh);
  if (!seconds) return;
  setInterval(() => { if (!viewer?.timer) location.reload(); }, 1000 * seconds);
}

async function begin() {
  setTheme(dark() ? "dark" : "light");
  document.getElementById("theme").addEventListener("click", () => setTheme(dark() ? "light" : "dark"));
  let viewer = null;
  if (document.getElementById("filters")) {
    viewer = new Viewer(await readData());
    fillFilters(viewer.data);
    connect(viewer);
    if (!viewer.follow(location.hash)) viewer.list();
  }
  reloadSoon(viewer);
  document.body.dataset.ready = "yes";
}

begin();
