// Figures of an answer in a line.

function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}

/** Says where an engine runs, and how its weights are rounded. */
export function place({ device, precision }) {
  return [device, precision].filter(Boolean).join(" ");
}

/** Says which device answered, and how fast. */
export function facts({ state, facts: { model, device, precision, tokens, speed, firstToken } }) {
  const parts = [
    place({ device, precision }),
    model,
    speed && `${speed.toFixed(1)} tokens/s`,
    firstToken !== undefined && firstToken !== null && `first token after ${seconds(firstToken)}`,
    tokens !== undefined && `${tokens} ${tokens === 1 ? "token" : "tokens"}`,
    state === "length" && "cut off at the maximum number of tokens",
  ];
  return parts.filter(Boolean).join(" · ");
}
