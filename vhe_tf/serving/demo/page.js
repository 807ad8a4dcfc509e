"use strict";

const NUM_SAMPLES = 8;
const FULL = 105;      // the size of Omniglot's drawings, in pixels
const STROKE = 4.5;    // wide enough that none falls between two sampled pixels
const parameters = new URLSearchParams(location.search);
const byId = (id) => document.getElementById(id);

const model = parameters.get("model");
const address = `/v1/models/${encodeURIComponent(model)}`;
let height = 28, width = 28, channels = 1;
let sampling = "sample";   // the signature that draws
let hasNovelty = false;    // whether the answer can be "Neither"
const classes = [];    // {images: [image], ...}, an image is [H][W][C] of 0 and 1

// Strokes in hundredths of the sheet, drawn by the buttons below it.
const EXAMPLES = [
  [[[25, 20], [25, 80], [75, 80]], [[25, 50], [60, 50]]],
  [[[50, 15], [20, 50], [50, 85], [80, 50], [50, 15]]],
  [[[20, 25], [80, 25], [30, 80]], [[45, 50], [80, 75]]],
];

function say(text, kind = "") {
  byId("status").textContent = text;
  byId("status").className = kind;
}

async function request(path, body) {
  const options = body && {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `HTTP ${response.status}`);
  return answer;
}

async function predict(signature, inputs) {
  const body = {signature_name: signature, inputs};
  const {outputs} = await request(`${address}:predict`, body);
  for (const text of outputs.status || []) if (text) throw new Error(text);
  return outputs;
}

// One seed a row; any integer will do.
function seeds(count) {
  return Array.from({length: count}, () => Math.floor(Math.random() * 2 ** 31));
}

// A drawing pad: strokes in the coordinates of a FULL x FULL sheet.
function pad(canvas, changed) {
  const context = canvas.getContext("2d");
  const scale = 3.2;
  let strokes = [], current = null;
  canvas.width = canvas.height = FULL * scale;

  function trace(target, factor) {
    target.lineWidth = STROKE * factor;
    target.lineCap = target.lineJoin = "round";
    for (const stroke of strokes) {
      target.beginPath();
      target.moveTo(stroke[0][0] * factor, stroke[0][1] * factor);
      for (const [x, y] of stroke) target.lineTo(x * factor, y * factor);
      target.stroke();
    }
  }
  function redraw() {
    context.clearRect(0, 0, canvas.width, canvas.height);
    trace(context, scale);
    changed();
  }
  function position(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * FULL,
            (event.clientY - box.top) / box.height * FULL];
  }
  canvas.addEventListener("pointerdown", (event) => {
    current = [position(event)];
    strokes.push(current);
    if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
    redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!current) return;
    current.push(position(event));
    redraw();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => { current = null; });
  }
  return {
    draw: (example) => {
      strokes = example.map((stroke) => stroke.map(([x, y]) => [x / 100 * FULL, y / 100 * FULL]));
      redraw();
    },
    empty: () => strokes.length === 0,
    clear: () => { strokes = []; redraw(); },
    // Omniglot's recipe: of the full sheet, every so many rows and columns.
    image: () => {
      const sheet = document.createElement("canvas");
      sheet.width = sheet.height = FULL;
      const target = sheet.getContext("2d");
      trace(target, 1);
      const alpha = target.getImageData(0, 0, FULL, FULL).data;
      const rows = [];
      for (let i = 0; i < height; i++) {
        const row = [];
        for (let j = 0; j < width; j++) {
          const y = Math.floor(i * FULL / height), x = Math.floor(j * FULL / width);
          const ink = alpha[4 * (y * FULL + x) + 3] >= 128 ? 1 : 0;
          row.push(new Array(channels).fill(ink));
        }
        rows.push(row);
      }
      return rows;
    },
  };
}

// Buttons that draw an example on a pad, each with its picture.
function offerExamples(container, target, name) {
  container.replaceChildren(...EXAMPLES.map((example, index) => {
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    const small = pad(canvas, () => {});
    small.draw(example);
    button.setAttribute("aria-label", `Draw example ${index + 1} as ${name}`);
    button.append(canvas);
    button.onclick = () => target.draw(example);
    return button;
  }));
}

function show(container, images, name) {
  container.replaceChildren(...images.map((image) => {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", name);
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    image.forEach((row, i) => row.forEach((pixel, j) => {
      const at = 4 * (i * width + j);
      for (let k = 0; k < 3; k++) {
        pixels.data[at + k] = 255 * (1 - pixel[k % channels]);
      }
      pixels.data[at + 3] = 255;
    }));
    context.putImageData(pixels, 0, 0);
    return canvas;
  }));
}

async function working(text, work) {
  say(text, "working");
  const slow = setTimeout(
      () => say(`${text} The first time takes some seconds.`, "working"), 1500);
  for (const button of document.querySelectorAll("button")) button.disabled = true;
  try {
    await work();
    clearTimeout(slow);
    say("");
  } catch (error) {
    clearTimeout(slow);
    say(`${error.message} (model ${model})`, "error");
  } finally {
    refresh();
  }
}

function refresh() {
  for (const one of classes) {
    one.addButton.disabled = one.pad.empty();
    one.moreButton.disabled = one.images.length === 0;
    one.clearButton.disabled = false;
  }
  byId("clear-query").disabled = false;
  byId("classify").disabled =
      query.empty() || classes.some((one) => one.images.length === 0);
}

function addClass(name) {
  const section = document.createElement("section");
  section.innerHTML = `
    <h2>${name} character</h2>
    <div class="row">
      <div>
        <canvas class="pad" tabindex="0" role="img" aria-label="Drawing of the ${name.toLowerCase()} character"></canvas>
        <div class="examples"></div>
        <button class="clear">Clear</button>
        <button class="add main" disabled>Add</button>
      </div>
      <div>
        <div class="label">your drawings</div><div class="images supports"></div>
        <div class="label">by other hands <button class="more" disabled>again</button></div>
        <div class="images samples"></div>
      </div>
    </div>`;
  byId("classes").append(section);
  const find = (selector) => section.querySelector(selector);
  const one = {
    name,
    images: [],
    pad: pad(find("canvas.pad"), () => refresh()),
    addButton: find(".add"), moreButton: find(".more"), clearButton: find(".clear"),
  };
  offerExamples(find(".examples"), one.pad, `the ${name.toLowerCase()} character`);
  const draw = () => working("Drawing …", async () => {
    const support = Array(NUM_SAMPLES).fill(one.images);
    const outputs = await predict(sampling, {support, seed: seeds(NUM_SAMPLES)});
    // An output that is alone comes without its name.
    show(find(".samples"), outputs.images || outputs, `${name} character, by another hand`);
  });
  one.clearButton.onclick = () => one.pad.clear();
  one.addButton.onclick = async () => {
    one.images.push(one.pad.image());
    show(find(".supports"), one.images, `your drawing of the ${name.toLowerCase()} character`);
    one.pad.clear();
    await draw();
  };
  one.moreButton.onclick = draw;
  classes.push(one);
}

async function classify() {
  await working("Looking …", async () => {
    // Every class needs as many drawings: those of the smaller are repeated.
    const shots = Math.max(...classes.map((one) => one.images.length));
    const support = classes.map((one) => Array.from(
        {length: shots}, (_, i) => one.images[i % one.images.length]));
    const inputs = {support: [support], query: [query.image()], seed: seeds(1)};
    const {log_likelihood, probabilities} = await predict("classify", inputs);
    let neither = 0;
    if (hasNovelty) {
      const {novelty} = await predict("novelty", {...inputs, log_likelihood});
      neither = 1 / (1 + Math.exp(-novelty[0]));
    }
    const answers = classes.map(
        (one, k) => [one.name, (1 - neither) * probabilities[0][k]]);
    if (hasNovelty) answers.push(["Neither", neither]);
    const most = Math.max(...answers.map((answer) => answer[1]));
    byId("answer").replaceChildren(...answers.map(([name, probability]) => {
      const bar = document.createElement("div");
      const share = (100 * probability).toFixed(1);
      bar.className = "bar";
      bar.innerHTML = `<span>${name}</span><div><span></span></div><span>${share}%</span>`;
      bar.querySelector(":scope > div > span").style.width = `${share}%`;
      if (probability === most) {
        bar.style.fontWeight = "600";
        byId("answer").dataset.label = name;
      }
      return bar;
    }));
  });
}

// Of a model with several group latents, `classify` is about the last one,
// like one of the `classify_NAME`. Only their answers show which.
async function lastLatent(names) {
  const blank = [Array(height).fill(Array(width).fill(Array(channels).fill(0)))];
  const inputs = {support: [[blank]], query: blank, seed: [0]};
  const score = async (signature) => (await predict(signature, inputs)).log_likelihood[0][0];
  const wanted = await score("classify");
  let last, least = Infinity;
  for (const name of names) {
    const difference = Math.abs(await score(`classify_${name}`) - wanted);
    if (difference < least) [last, least] = [name, difference];
  }
  return last;
}

async function start() {
  if (!model) throw new Error("Add ?model=NAME to the address of this page.");
  const {metadata} = await request(`${address}/metadata`);
  const signatures = metadata.signature_def.signature_def;
  const sizes = signatures.classify.inputs.query.tensor_shape.dim.map((dim) => Number(dim.size));
  [height, width, channels] = sizes.slice(-3);
  hasNovelty = "novelty" in signatures;
  if (!signatures.sample.inputs.support) {
    const names = Object.keys(signatures).filter((name) => name.startsWith("classify_"))
        .map((name) => name.slice("classify_".length));
    sampling = `sample_${await lastLatent(names)}`;
  }
}

addClass("First");
addClass("Second");
const query = pad(byId("query"), () => refresh());
offerExamples(byId("query-examples"), query, "the character to recognise");
byId("clear-query").onclick = () => query.clear();
byId("classify").onclick = classify;
working("Connecting …", start);
