// Drawing a grid from minigrid's codes: (type, colour, state) of every cell, column after column.

const TYPES = ["unseen", "empty", "wall", "floor", "door", "key", "ball", "box", "goal", "lava"];
const COLOURS = ["red", "green", "blue", "purple", "yellow", "grey"];
const PAINT = ["#ff4f4f", "#3fd06a", "#5b8cff", "#b06bff", "#f5d33c", "#9a9a9a"];
const DOORS = ["open", "closed", "locked"];
const FACING = ["right", "down", "left", "up"];
const SIDE = 32; // pixels of a cell

function drawGrid(canvas, state) {
  const [width, height] = state.size;
  canvas.width = width * SIDE;
  canvas.height = height * SIDE;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#101114";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      const at = 3 * (x * height + y);
      pen.save();
      pen.translate(x * SIDE, y * SIDE);
      pen.strokeStyle = "#2b2e35";
      pen.strokeRect(0, 0, SIDE, SIDE);
      drawThing(pen, ...state.grid.slice(at, at + 3));
      pen.restore();
    }
  }
  drawAgent(pen, state.agent);
  if (state.carrying) {
    pen.save();
    pen.translate(state.agent[0] * SIDE + SIDE / 2, state.agent[1] * SIDE + SIDE / 2);
    pen.scale(0.45, 0.45);
    drawThing(pen, ...state.carrying, 0);
    pen.restore();
  }
}

function drawThing(pen, type, colour, doorState) {
  const paint = PAINT[colour] ?? "#dddddd";
  const name = TYPES[type];
  const s = SIDE;
  pen.fillStyle = paint;
  pen.strokeStyle = paint;
  pen.lineWidth = 3;
  if (name === "unseen" || name === "empty") return;
  if (name === "wall") {
    pen.fillStyle = "#767b85";
    pen.fillRect(0, 0, s, s);
  } else if (name === "floor" || name === "goal") {
    pen.globalAlpha = name === "floor" ? 0.4 : 1;
    pen.fillRect(1, 1, s - 2, s - 2);
    pen.globalAlpha = 1;
  } else if (name === "lava") {
    pen.fillStyle = "#ff8000";
    pen.fillRect(0, 0, s, s);
  } else if (name === "door") {
    drawDoor(pen, paint, doorState);
  } else if (name === "key") {
    pen.beginPath();
    pen.arc(s / 2, s * 0.3, s * 0.16, 0, 2 * Math.PI);
    pen.moveTo(s / 2, s * 0.45);
    pen.lineTo(s / 2, s * 0.88);
    pen.lineTo(s * 0.34, s * 0.88);
    pen.moveTo(s / 2, s * 0.7);
    pen.lineTo(s * 0.36, s * 0.7);
    pen.stroke();
  } else if (name === "ball") {
    pen.beginPath();
    pen.arc(s / 2, s / 2, s * 0.32, 0, 2 * Math.PI);
    pen.fill();
  } else if (name === "box") {
    pen.strokeRect(s * 0.18, s * 0.18, s * 0.64, s * 0.64);
    pen.beginPath();
    pen.moveTo(s * 0.18, s / 2);
    pen.lineTo(s * 0.82, s / 2);
    pen.stroke();
  } else {
    pen.font = `${s * 0.7}px sans-serif`;
    pen.textAlign = "center";
    pen.fillText("?", s / 2, s * 0.75);
  }
}

function drawDoor(pen, paint, doorState) {
  const s = SIDE;
  if (DOORS[doorState] === "open") {
    pen.fillRect(1, 1, s * 0.18, s - 2);
    return;
  }
  pen.strokeRect(3, 3, s - 6, s - 6);
  if (DOORS[doorState] === "locked") {
    pen.globalAlpha = 0.35;
    pen.fillRect(3, 3, s - 6, s - 6);
    pen.globalAlpha = 1;
  }
  pen.beginPath();
  pen.arc(s * 0.72, s / 2, s * 0.08, 0, 2 * Math.PI);
  pen.fill();
}

function drawAgent(pen, [x, y, facing]) {
  pen.save();
  pen.translate((x + 0.5) * SIDE, (y + 0.5) * SIDE);
  pen.rotate((facing * Math.PI) / 2);
  pen.fillStyle = "#ff3030";
  pen.strokeStyle = "#ffffff";
  pen.lineWidth = 1.5;
  pen.beginPath();
  pen.moveTo(SIDE * 0.4, 0);
  pen.lineTo(-SIDE * 0.32, SIDE * 0.34);
  pen.lineTo(-SIDE * 0.32, -SIDE * 0.34);
  pen.closePath();
  pen.fill();
  pen.stroke();
  pen.restore();
}

// What the picture shows, in words.
function describeGrid(state) {
  const [width, height] = state.size;
  const [x, y, facing] = state.agent;
  const things = [];
  for (let at = 0; at < state.grid.length; at += 3) {
    const [type, colour, doorState] = state.grid.slice(at, at + 3);
    const name = TYPES[type] ?? "thing";
    if (["unseen", "empty", "wall", "floor"].includes(name)) continue;
    const cell = at / 3;
    const door = name === "door" ? `${DOORS[doorState] ?? ""} ` : "";
    things.push(
      `${door}${COLOURS[colour] ?? ""} ${name} at ${Math.floor(cell / height)}, ${cell % height}`,
    );
  }
  const held = state.carrying
    ? `, carrying a ${COLOURS[state.carrying[1]] ?? ""} ${TYPES[state.carrying[0]] ?? "thing"}`
    : "";
  return (
    `Grid of ${width} by ${height}. The agent is at ${x}, ${y}, facing ${FACING[facing]}${held}. ` +
    things.join("; ")
  );
}
