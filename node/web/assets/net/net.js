// The one door to the network. Every request and the event stream go through here, because this module alone knows which
// node is in use, and moves to another when that one goes away. It also carries the cursor that makes a person's own
// writes visible on the node that they moved to.

import { Nodes } from './nodes.js';
import { Problem, Unreachable } from './problem.js';

/** @typedef {import('../types.js').Connection} Connection */

/**
 * @typedef {object} RequestOptions
 * @property {unknown} [body] Sent as JSON.
 * @property {Record<string, string>} [headers]
 * @property {boolean} [auth] False when a 401 is an answer (a wrong password), not the end of the session.
 * @property {boolean} [repeat] False when the request must not be sent twice.
 * @property {number} [timeout] Milliseconds.
 */

/**
 * @typedef {object} Answer
 * @property {number} status
 * @property {any} data
 */

const TRIES = 4;
const TIMEOUT_MS = 12_000;
const PROBE_MS = 2_500;
/** Alternatives are asked in turn, each this much after the one before, and the first that answers wins. */
const STAGGER_MS = 150;
/** After this, events of a new node are taken to include the last write at the old one. */
const SETTLED_MS = 10_000;

/** Events: `moved` (another node is in use), `status` (the connection changed), `unauthorized` (the session is over). */
export class Net extends EventTarget {
  /** @type {Promise<boolean>|null} */
  #search = null;
  #after = '';
  #afterBase = '';
  #afterAt = 0;

  /**
   * @param {string} home Origin of the page.
   * @param {Storage|null} storage
   */
  constructor(home, storage) {
    super();
    this.home = home;
    this.nodes = new Nodes(home, storage);
    /** @type {Connection} */
    this.connection = { state: 'reconnecting', region: '', latency: null, base: home };
  }

  get base() {
    return this.connection.base;
  }

  /** @param {Partial<Connection>} change */
  update(change) {
    const before = this.connection;
    this.connection = { ...before, ...change };
    if (this.connection.base !== before.base) {
      this.connection.latency = null;
      this.dispatchEvent(new Event('moved'));
    }
    this.dispatchEvent(new Event('status'));
  }

  /**
   * Remembers how far this client has seen. `written` is for the answer to a write, which no later event may push out
   * before the node in use has it too.
   * @param {string|null} cursor
   * @param {{base: string, written: boolean}} from
   */
  saw(cursor, { base, written }) {
    if (!cursor) return;
    if (!written && base !== this.#afterBase && Date.now() - this.#afterAt < SETTLED_MS) return;
    this.#after = cursor;
    this.#afterBase = base;
    this.#afterAt = Date.now();
  }

  /** Forgets what the last account saw. */
  forget() {
    this.#after = '';
    this.#afterBase = '';
  }

  /**
   * Sends a request to the node in use; when that fails, to another. Throws {@link Problem} or {@link Unreachable}.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [options]
   * @returns {Promise<Answer>}
   */
  async request(method, path, options = {}) {
    const { auth = true, repeat = true } = options;
    for (let attempt = 0; attempt < TRIES; attempt++) {
      const base = this.base;
      /** @type {Response} */
      let response;
      /** @type {any} */
      let data;
      try {
        response = await this.#send(base, method, path, options);
        data = await read(response);
      } catch {
        this.nodes.failed(base);
        const usable = this.suspect(base);
        if (!repeat || !(await usable)) throw new Unreachable();
        continue;
      }
      this.saw(response.headers.get('MyChat-Cursor'), { base, written: true });
      if (response.ok) return { status: response.status, data };
      if (response.status === 400 && data?.code === 'invalid_cursor' && this.#after) {
        // Of another release, or from before the cluster was set up anew: no node can make anything of it.
        this.forget();
        continue;
      }
      if (response.status === 401 && auth && (await this.refused(base))) continue;
      if ([502, 503, 504].includes(response.status) && repeat && (await this.moveAway(base))) continue;
      throw new Problem(response.status, data, retryAfter(response));
    }
    throw new Unreachable();
  }

  /**
   * @param {string} base
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} options
   */
  #send(base, method, path, { body, headers, timeout = TIMEOUT_MS }) {
    /** @type {Record<string, string>} */
    const all = { Accept: 'application/json', 'MyChat-Client': 'web', ...headers };
    if (body !== undefined) all['Content-Type'] = 'application/json';
    if (method === 'GET' && this.#after) all['MyChat-After'] = this.#after;
    return fetch(base + path, {
      method,
      headers: all,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: 'include',
      cache: 'no-store',
      signal: AbortSignal.timeout(timeout),
    });
  }

  /**
   * A request to this node failed. Resolves to true when it is worth trying again: the node answers after all, or another took over.
   * @param {string} base
   * @returns {Promise<boolean>}
   */
  async suspect(base) {
    if (this.base !== base) return true;
    if ((await this.probe(base, '/livez')) !== null) return true;
    return this.moveAway(base);
  }

  /**
   * This node says that we are not signed in. At home that ends the session; elsewhere the node may just not share our
   * cookie, so another is tried first. Resolves to true when there is another.
   * @param {string} base
   * @returns {Promise<boolean>}
   */
  async refused(base) {
    if (this.base !== base) return true;
    if (base !== this.home) {
      this.nodes.refused(base);
      if (await this.moveAway(base)) return true;
    }
    this.dispatchEvent(new Event('unauthorized'));
    return false;
  }

  /**
   * Leaves a node for the best other one that is ready. Any number of callers share one search.
   * @param {string} base The node to leave.
   * @param {unknown[]} [preferred] URLs that it named as alternatives.
   * @returns {Promise<boolean>} False when no other node answers; then the one in use stays.
   */
  async moveAway(base, preferred = []) {
    if (this.base !== base) return true;
    this.#search ??= this.#find(base, preferred).finally(() => {
      this.#search = null;
    });
    return this.#search;
  }

  /**
   * @param {string} base
   * @param {unknown[]} preferred
   */
  async #find(base, preferred) {
    if (this.connection.state === 'live') this.update({ state: 'reconnecting' });
    let found = false;
    const tries = this.nodes.alternatives(base, preferred).map(async (url, turn) => {
      await new Promise((resolve) => setTimeout(resolve, turn * STAGGER_MS));
      if (found || (await this.probe(url, '/readyz')) === null) throw new Error('not this one');
      found = true;
      return url;
    });
    try {
      this.update({ base: await Promise.any(tries), region: '' });
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Asks a node for a sign of life. Resolves to the round trip in milliseconds, or null without an answer.
   * @param {string} url
   * @param {string} path
   */
  async probe(url, path) {
    const start = performance.now();
    try {
      const response = await fetch(url + path, {
        credentials: 'omit',
        cache: 'no-store',
        signal: AbortSignal.timeout(PROBE_MS),
      });
      let ms = performance.now() - start;
      await response.text();
      if (!response.ok) return null;
      ms = networkTime(url + path) ?? ms;
      this.nodes.answered(url, ms);
      return ms;
    } catch {
      this.nodes.failed(url);
      return null;
    }
  }
}

/**
 * The last round trip to this address as the browser saw it on the line, without what it cost to connect, nor the time that a
 * busy page took to notice the answer. Null when the browser does not tell (as for another origin).
 * @param {string} address
 */
function networkTime(address) {
  const entry = performance.getEntriesByName?.(address, 'resource').at(-1);
  performance.clearResourceTimings?.(); // its buffer is small, and is of no other use here
  if (!(entry instanceof PerformanceResourceTiming) || !entry.requestStart || !entry.responseStart) return null;
  return entry.responseStart - entry.requestStart;
}

/** @param {Response} response */
async function read(response) {
  if (response.status === 204) return null;
  const text = await response.text();
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

/** @param {Response} response */
function retryAfter(response) {
  const seconds = Number(response.headers.get('Retry-After') ?? NaN);
  return Number.isFinite(seconds) ? seconds : null;
}

/** @returns {Storage|null} */
function storage() {
  try {
    return globalThis.localStorage ?? null;
  } catch {
    return null;
  }
}

/** The network as this page uses it. */
export const net = new Net(globalThis.location?.origin ?? 'http://localhost', storage());
