// One slider a coordinate of the code, over the interval that holds every code that explains the
// picture. The server is asked for the output of the code; it answers only the last that was asked.
let asked = 0;

const entry = (value) => (value === null ? "–" : value.toFixed(3));

function build() {
  const { latent, error, lower, upper, reach } = props.value;
  const rows = latent.map((value, i) => {
    const known = lower[i] !== null;
    const low = known ? 50 + 50 * Math.max(lower[i], -reach) / reach : 0;
    const high = known ? 50 + 50 * Math.min(upper[i], reach) / reach : 0;
    const band = known ? `<i style="left:${low}%;width:${Math.max(high - low, 0.5)}%"></i>` : "";
    const spread = error[i] === null ? "" : `± ${error[i].toPrecision(2)} `;
    const words = spread + (known ? `[${entry(lower[i])}, ${entry(upper[i])}]` : "no interval");
    return `<label data-row="${i}"><span class="name">z<sub>${i}</sub></span>` +
      `<span class="track"><span class="bands">${band}</span><input type="range" aria-label="z ${i}" min="${-reach}" ` +
      `max="${reach}" step="any" value="${value ?? 0}"></span>` +
      `<output>${entry(value)}</output><span class="soft interval">${words}</span></label>`;
  });
  element.querySelector(".rows").innerHTML = rows.join("");
  element.querySelector(".panel").hidden = latent.length === 0;
  judge();
  ask();
}

const inputs = () => [...element.querySelectorAll(".rows input")];

// Which coordinates have left their interval; a code that stands on its end is inside.
function judge() {
  const { lower, upper, reach } = props.value, outside = [];
  inputs().forEach((input, i) => {
    const value = Number(input.value), slack = 1e-9 * reach;
    const out = lower[i] !== null && (value < lower[i] - slack || value > upper[i] + slack);
    if (out) outside.push(`z${i}`);
    const row = input.closest("label");
    row.classList.toggle("out", out);
    row.querySelector("output").textContent = value.toFixed(3);
  });
  const known = lower.some((end) => end !== null);
  const place = element.querySelector(".place");
  place.classList.toggle("out", outside.length > 0);
  place.textContent = !known ? "There is no certified box."
    : outside.length === 0 ? "Inside the certified box."
    : `Left the certified box in ${outside.join(", ")}: no code out here explains the picture.`;
}

async function ask() {
  const mine = ++asked;
  await new Promise((done) => setTimeout(done, 60));
  if (mine !== asked || props.value.latent.length === 0) return;
  const code = inputs().map((input) => Number(input.value));
  const { observation, seen, noise } = props.value;
  const shown = await server.show({ code, observation, seen, noise });
  if (mine === asked) element.querySelector(".moved").innerHTML = shown;
}

element.addEventListener("input", () => { judge(); ask(); });
element.addEventListener("click", (event) => {
  if (event.target.dataset?.back === undefined) return;
  const { latent } = props.value;
  inputs().forEach((input, i) => { input.value = latent[i] ?? 0; });
  judge();
  ask();
});

watch("value", build);
build();
