// Draws an evidence map over the image: where the model found its reasons, weak to strong.

// Control points red, green, blue, opacity. Opacity and lightness rise together, so the map reads without colour vision
// and leaves the image alone where there is no evidence.
const RAMP = [[90, 20, 110, 0], [150, 30, 100, 0.22], [230, 100, 30, 0.42], [255, 215, 110, 0.6]];

export function colour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (RAMP.length - 1);
  const below = Math.min(Math.floor(place), RAMP.length - 2);
  const mixed = RAMP[below].map((from, i) => from + (RAMP[below + 1][i] - from) * (place - below));
  return [...mixed.slice(0, 3).map(Math.round), Math.round(255 * mixed[3])];
}

// Returns whether there was a map to draw. `grid` is [rows, columns]; values are 0..1, row by row. The canvas takes the
// shape of the image and lies over it; the map covers `region` of it: [x, y, width, height] as shares, null for all.
export function paint(canvas, values, grid, image, region) {
  if (!values || !grid || values.length !== grid[0] * grid[1]) return false;
  const [rows, columns] = grid;
  const small = new OffscreenCanvas(columns, rows);
  const pixels = new ImageData(columns, rows);
  const highest = Math.max(...values, 1e-6);
  values.forEach((value, i) => pixels.data.set(colour(value / highest), 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  canvas.width = 480;
  canvas.height = Math.round((480 * image.naturalHeight) / image.naturalWidth);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  const [x, y, width, height] = region ?? [0, 0, 1, 1];
  context.drawImage(small, x * canvas.width, y * canvas.height, width * canvas.width, height * canvas.height);
  return true;
}
