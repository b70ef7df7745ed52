// The canvas on which a visitor draws and hides pixels. `value` holds the picture and what is
// hidden; it is handed on when a stroke ends.
const tools = { draw: "draw", erase: "erase", hide: "hide", show: "show" };
let stroke = null;

function paint() {
  const { picture, hidden, colours, height, width } = props.value;
  const canvas = element.querySelector("canvas");
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height), size = width * height;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++)
      image.data[4 * i + c] = 255 * picture[(colours === 3 ? c * size : 0) + i];
    if (hidden[i]) {
      // Stripes, for those who do not see the colour.
      const light = (Math.floor(i / width) + i % width) % 3 === 0 ? 0.65 : 1;
      image.data.set([214 * light, 93 * light, 14 * light], 4 * i);
    }
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function dab(event) {
  const { picture, hidden, colours, height, width } = props.value;
  const box = element.querySelector("canvas").getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * width - 0.5;
  const y = (event.clientY - box.top) / box.height * height - 0.5;
  const tool = element.querySelector("input:checked").value, size = width * height;
  const radius = (tool === "draw" ? 0.04 : 0.07) * Math.max(width, height);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      const strength = Math.min(1, radius + 0.5 - Math.hypot(row - y, column - x));
      if (strength <= 0) continue;
      for (let c = 0; c < colours; c++) {
        const at = c * size + row * width + column;
        if (tool === tools.draw) picture[at] = Math.max(picture[at], strength);
        if (tool === tools.erase) picture[at] = Math.min(picture[at], 1 - strength);
        if (tool === tools.hide && strength > 0.5) hidden[at] = 1;
        if (tool === tools.show) hidden[at] = 0;
      }
    }
  paint();
}

element.addEventListener("pointerdown", (event) => {
  if (event.target.tagName !== "CANVAS") return;
  event.target.setPointerCapture(event.pointerId);
  stroke = event.pointerId;
  dab(event);
});
element.addEventListener("pointermove", (event) => {
  if (stroke === event.pointerId) for (const part of event.getCoalescedEvents?.() ?? [event]) dab(part);
});
for (const name of ["pointerup", "pointercancel"])
  element.addEventListener(name, (event) => {
    if (stroke !== event.pointerId) return;
    stroke = null;
    hand_on();
  });
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const what = button?.dataset.clear;
  if (what) props.value[what].fill(0);
  else if (button?.dataset.digit !== undefined) copy(button.querySelector("img"));
  else return;
  hand_on();
});

// A thumbnail has the pixels themselves.
function copy(image) {
  const { picture, hidden, colours, height, width } = props.value;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  const bytes = context.getImageData(0, 0, width, height).data;
  for (let c = 0; c < colours; c++)
    for (let i = 0; i < width * height; i++) picture[c * width * height + i] = bytes[4 * i + c] / 255;
  hidden.fill(0);
}

function hand_on() {
  props.value = { ...props.value };
  paint();
}

watch("value", paint);
paint();
