// A spectrogram on a canvas: Hann windows, 80 dB of range, mel-like frequency axis.

const WINDOW = 1024;
const RANGE_DB = 80;
const STOPS = [[12, 12, 20], [62, 30, 74], [180, 83, 15], [242, 166, 90], [255, 244, 224]];

/** Fast Fourier transform in place; the length is a power of two. */
export function fft(real, imaginary) {
  const count = real.length;
  for (let i = 1, j = 0; i < count; i += 1) {
    let bit = count >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let size = 2; size <= count; size <<= 1) {
    const angle = (-2 * Math.PI) / size;
    for (let start = 0; start < count; start += size) butterflies(real, imaginary, start, size / 2, angle);
  }
}

function butterflies(real, imaginary, start, half, angle) {
  for (let k = 0; k < half; k += 1) {
    const [cosine, sine] = [Math.cos(angle * k), Math.sin(angle * k)];
    const [i, j] = [start + k, start + k + half];
    const x = real[j] * cosine - imaginary[j] * sine;
    const y = real[j] * sine + imaginary[j] * cosine;
    [real[j], imaginary[j]] = [real[i] - x, imaginary[i] - y];
    [real[i], imaginary[i]] = [real[i] + x, imaginary[i] + y];
  }
}

/** Draw samples; the canvas keeps its own width and height in pixels. */
export function drawSpectrogram(canvas, samples, sampleRate) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const rows = binsOfRows(height, sampleRate);
  for (let x = 0; x < width; x += 1) {
    const levels = levelsAt(samples, Math.round((x / width) * samples.length));
    for (let y = 0; y < height; y += 1) {
      const colour = colourOf(1 + levels[rows[y]] / RANGE_DB);
      image.data.set([...colour, 255], 4 * (y * width + x));
    }
  }
  context.putImageData(image, 0, 0);
}

function levelsAt(samples, centre) {
  const real = new Float32Array(WINDOW);
  for (let n = 0; n < WINDOW; n += 1) {
    const hann = 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / WINDOW);
    real[n] = hann * (samples[centre - WINDOW / 2 + n] ?? 0);
  }
  const imaginary = new Float32Array(WINDOW);
  fft(real, imaginary);
  return real.subarray(0, WINDOW / 2).map((x, k) => {
    const power = (x * x + imaginary[k] ** 2) / (WINDOW / 4) ** 2;
    return Math.min(0, Math.max(-RANGE_DB, 10 * Math.log10(power + 1e-12)));
  });
}

function binsOfRows(height, sampleRate) {
  const top = 2595 * Math.log10(1 + sampleRate / 2 / 700);
  return Array.from({ length: height }, (_, y) => {
    const hz = 700 * (10 ** ((top * (1 - y / height)) / 2595) - 1);
    return Math.min(WINDOW / 2 - 1, Math.round((hz / sampleRate) * WINDOW));
  });
}

function colourOf(level) {
  const place = Math.max(0, Math.min(1, level)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(place));
  return STOPS[low].map((value, n) => value + (place - low) * (STOPS[low + 1][n] - value));
}
