// Waiting between tries: exponential, with half of it random so that many clients do not come back at once.

const FIRST = 500;
const CAP = 30_000;

/**
 * Milliseconds to wait before try number `attempt` (0, 1, …): between half and the whole of a time that doubles up to 30 s.
 * @param {number} attempt
 * @param {number} [first] The whole time of the first wait.
 * @param {() => number} [random] In [0, 1); given in tests.
 */
export function backoff(attempt, first = FIRST, random = Math.random) {
  const whole = Math.min(CAP, first * 2 ** Math.min(attempt, 20));
  return whole / 2 + (random() * whole) / 2;
}

/**
 * Resolves after a time, or sooner when the signal aborts.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
  });
}
