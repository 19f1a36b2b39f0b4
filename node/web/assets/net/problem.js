// Errors of the network layer, and their explanation in plain words for people.

/** The server answered, and the answer is no (problem+json). */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {any} body The parsed problem document, or null when there is none.
   * @param {number|null} retryAfter Seconds to wait as the server asks, if it does.
   */
  constructor(status, body, retryAfter = null) {
    super(body?.detail || body?.title || `The server answered ${status}.`);
    this.name = 'Problem';
    this.status = status;
    /** @type {string} */
    this.code = typeof body?.code === 'string' ? body.code : '';
    this.retryAfter = retryAfter;
    this.fromServer = Boolean(body?.detail || body?.title);
  }
}

/** No node could be reached. */
export class Unreachable extends Error {
  constructor() {
    super('No server can be reached right now.');
    this.name = 'Unreachable';
  }
}

/** @type {Record<string, string>} */
const WORDS = {
  rate_limited: 'That was too fast. Wait a moment and try again.',
  unavailable: 'The server can’t do this right now. Try again in a moment.',
  mfa_required: 'This account needs a second factor, which this page can’t ask for yet.',
};

/**
 * What to tell a person about an error.
 * @param {unknown} error
 * @returns {string}
 */
export function explain(error) {
  if (error instanceof Unreachable) return 'No server can be reached right now. Check your connection.';
  if (error instanceof Problem) {
    if (WORDS[error.code]) return WORDS[error.code];
    if (error.fromServer) return sentence(error.message);
    if (error.status === 401) return 'You are not signed in any more.';
    if (error.status === 403) return 'You are not allowed to do that.';
    if (error.status === 413) return 'That is too long to send.';
    if (error.status === 404) return 'That does not exist, or you may not see it.';
    if (error.status >= 500) return WORDS.unavailable;
    return error.message;
  }
  return 'Something went wrong in this page. Reload it and try again.';
}

/** @param {string} text */
function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}
