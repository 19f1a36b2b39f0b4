// The event stream: kept open for as long as the account is signed in, on whichever node is in use, from the cursor on.
// It reads `text/event-stream` with fetch (EventSource can't send the headers that we need and gives up on errors), falls
// back to long polling where the network holds streams back, and treats long silence as death.

import { backoff, sleep } from './backoff.js';
import { SseParser } from './sse.js';

/** @typedef {import('../types.js').ServerEvent} ServerEvent */
/** @typedef {import('./net.js').Net} Net */

const HEAD_MS = 8_000;
const FIRST_BYTES_MS = 10_000;
const SILENCE_MS = 45_000;
const POLL_S = 25;

/**
 * Why a connection ended.
 * @typedef {{kind: 'moved'|'stopped'|'closed'|'failed'|'silent'|'unauthorized'|'busy'|'held-back'|'reset', alternatives?: unknown[]}
 *   | {kind: 'goodbye', alternatives: unknown[], retry?: number}} End
 */

export class EventStream {
  /** @type {string|null} */
  cursor = null;
  #stopped = new AbortController();
  #polling = false;
  #events = 0;
  #retry = 0;

  /**
   * @param {Net} net
   * @param {string|null} cursor Where to go on; null for "now".
   * @param {(event: ServerEvent) => void} onEvent
   */
  constructor(net, cursor, onEvent) {
    this.net = net;
    this.cursor = cursor;
    this.onEvent = onEvent;
  }

  stop() {
    this.#stopped.abort();
  }

  /** Runs until stopped. */
  async run() {
    let attempt = 0;
    while (!this.#stopped.signal.aborted) {
      const base = this.net.base;
      this.#events = 0;
      const end = this.#polling ? await this.#poll(base) : await this.#listen(base);
      if (this.#stopped.signal.aborted) return;
      if (this.#events > 0) attempt = 0;
      if (end.kind === 'held-back') {
        this.#polling = true;
        continue;
      }
      if (end.kind === 'moved') {
        this.#polling = false;
        continue;
      }
      if (this.net.connection.state === 'live') this.net.update({ state: 'reconnecting' });
      if (await this.#settle(end, base, attempt)) {
        // Thousands of clients may have lost the same node in this moment.
        await this.#wait((end.kind === 'goodbye' && end.retry) || Math.random() * 250);
        if (attempt++ < 3) continue;
      } else {
        this.net.update({ state: 'offline' });
        attempt++;
      }
      await this.#wait(backoff(attempt - 1, this.#retry || undefined));
    }
  }

  /**
   * Decides where to go on after a connection ended. Resolves to true when there is a node worth trying at once.
   * @param {End} end
   * @param {string} base
   * @param {number} attempt
   */
  async #settle(end, base, attempt) {
    switch (end.kind) {
      case 'unauthorized':
        return this.net.refused(base);
      case 'reset':
        this.#take({ type: 'reset', data: null, cursor: null }, base);
        return true;
      case 'goodbye':
      case 'silent':
      case 'busy':
        return this.net.moveAway(base, end.alternatives ?? []);
      case 'closed':
        // A reader that was too slow is closed by a healthy node: come back to it, but not again and again.
        return attempt === 0 ? this.net.suspect(base) : this.net.moveAway(base);
      default:
        this.net.nodes.failed(base);
        return attempt === 0 ? this.net.suspect(base) : this.net.moveAway(base);
    }
  }

  /**
   * Waits, or until the network is back or another part of the page has found a node.
   * @param {number} ms
   */
  async #wait(ms) {
    const wake = new AbortController();
    const end = () => wake.abort();
    globalThis.addEventListener?.('online', end, { signal: wake.signal });
    this.net.addEventListener('moved', end, { signal: wake.signal });
    this.#stopped.signal.addEventListener('abort', end, { signal: wake.signal });
    await sleep(ms, wake.signal);
    wake.abort();
  }

  /** @returns {Record<string, string>} */
  #headers() {
    return this.cursor ? { 'MyChat-Client': 'fetch', 'Last-Event-ID': this.cursor } : { 'MyChat-Client': 'fetch' };
  }

  /**
   * One streamed connection, from its request to its end.
   * @param {string} base
   * @returns {Promise<End>}
   */
  async #listen(base) {
    const control = new AbortController();
    /** @type {End} */
    let end = { kind: 'failed' };
    /** @param {End} why */
    const abort = (why) => {
      end = why;
      control.abort();
    };
    const cleanup = this.#abortWhenMoved(abort);
    let timer = setTimeout(() => abort({ kind: 'failed' }), HEAD_MS);
    try {
      const response = await fetch(`${base}/v1/events`, {
        headers: { Accept: 'text/event-stream', ...this.#headers() },
        credentials: 'include',
        cache: 'no-store',
        signal: control.signal,
      });
      if (!response.ok || !response.body) return await refusal(response);
      clearTimeout(timer);
      timer = setTimeout(() => abort({ kind: 'held-back' }), FIRST_BYTES_MS);
      const parser = new SseParser();
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return { kind: 'closed' };
        clearTimeout(timer);
        timer = setTimeout(() => abort({ kind: 'silent' }), SILENCE_MS);
        for (const raw of parser.push(value)) {
          const event = { type: raw.type, data: parse(raw.data), cursor: raw.id };
          const ending = this.#take(event, base);
          if (ending) return ending;
        }
        if (parser.retry !== null) this.#retry = parser.retry;
      }
    } catch {
      return end;
    } finally {
      clearTimeout(timer);
      cleanup();
      control.abort();
    }
  }

  /**
   * The same by long polling.
   * @param {string} base
   * @returns {Promise<End>}
   */
  async #poll(base) {
    const control = new AbortController();
    /** @type {End} */
    let end = { kind: 'failed' };
    const cleanup = this.#abortWhenMoved((why) => {
      end = why;
      control.abort();
    });
    try {
      const fresh = !this.cursor;
      for (let first = true; ; first = false) {
        const wait = first ? 1 : POLL_S;
        const query = new URLSearchParams({ poll: String(wait) });
        if (this.cursor) query.set('cursor', this.cursor);
        const response = await fetch(`${base}/v1/events?${query}`, {
          headers: { Accept: 'application/json', ...this.#headers() },
          credentials: 'include',
          cache: 'no-store',
          signal: AbortSignal.any([control.signal, AbortSignal.timeout((wait + 15) * 1000)]),
        });
        if (!response.ok) return await refusal(response);
        const answer = await response.json();
        for (const item of Array.isArray(answer?.events) ? answer.events : []) {
          const data = typeof item.data === 'string' ? parse(item.data) : item.data;
          const event = { type: item.event ?? item.type, data, cursor: item.id ?? null };
          const ending = this.#take(event, base);
          if (ending) return ending;
        }
        if (typeof answer?.cursor === 'string') this.#advance(answer.cursor, base);
        // What `ready` says in a stream: from here on nothing is missed.
        if (first && fresh) this.onEvent({ type: 'ready', data: null, cursor: this.cursor });
        if (first || this.net.connection.state !== 'live') this.#live(base, null);
        this.#events += 1;
      }
    } catch {
      return end;
    } finally {
      cleanup();
    }
  }

  /**
   * @param {(why: End) => void} abort
   * @returns {() => void}
   */
  #abortWhenMoved(abort) {
    const moved = () => abort({ kind: 'moved' });
    const stopped = () => abort({ kind: 'stopped' });
    this.net.addEventListener('moved', moved);
    this.#stopped.signal.addEventListener('abort', stopped);
    return () => {
      this.net.removeEventListener('moved', moved);
      this.#stopped.signal.removeEventListener('abort', stopped);
    };
  }

  /**
   * @param {ServerEvent} event
   * @param {string} base
   * @returns {End|null} Set when this event ends the connection.
   */
  #take(event, base) {
    if (this.#stopped.signal.aborted) return { kind: 'stopped' };
    if (event.type === 'goodbye') {
      const { alternatives, retry } = event.data ?? {};
      // A node that goes out of service gives each of its clients another time to come back.
      const wait = Number.isFinite(retry) ? Number(retry) : undefined;
      return { kind: 'goodbye', alternatives: Array.isArray(alternatives) ? alternatives : [], retry: wait };
    }
    this.#events += 1;
    if (event.type === 'ready') {
      if (Number.isFinite(event.data?.retry)) this.#retry = event.data.retry;
      // Without a cursor of our own this is where we begin; with one, events up to here are still to come.
      if (!this.cursor) this.#advance(event.cursor ?? event.data?.cursor ?? null, base);
      this.#live(base, event.data?.region ?? null);
    } else if (event.type === 'reset') {
      this.cursor = null;
      this.#advance(event.cursor ?? event.data?.cursor ?? null, base);
    } else {
      this.#advance(event.cursor, base);
      if (this.net.connection.state !== 'live') this.#live(base, null);
    }
    this.onEvent({ ...event, cursor: this.cursor });
    return this.#stopped.signal.aborted ? { kind: 'stopped' } : null;
  }

  /**
   * @param {string} base
   * @param {string|null} region
   */
  #live(base, region) {
    if (this.net.base !== base) return;
    this.net.update(region ? { state: 'live', region } : { state: 'live' });
  }

  /**
   * @param {string|null} cursor
   * @param {string} base
   */
  #advance(cursor, base) {
    if (!cursor) return;
    this.cursor = cursor;
    this.net.saw(cursor, { base, written: false });
  }
}

/**
 * @param {Response} response
 * @returns {Promise<End>}
 */
async function refusal(response) {
  const { status } = response;
  if (status === 401 || status === 403) return { kind: 'unauthorized' };
  if (status === 503 || status === 429) {
    const alternatives = parse(await response.text())?.alternatives;
    return { kind: 'busy', alternatives: Array.isArray(alternatives) ? alternatives : [] };
  }
  if (status === 400 && parse(await response.text())?.code === 'invalid_cursor') return { kind: 'reset' };
  return { kind: 'failed' };
}

/** @param {string} text */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
