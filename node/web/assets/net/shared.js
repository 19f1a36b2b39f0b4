// One event stream for all tabs of this browser at this origin (browsers allow few connections to a server, and a stream
// takes one for good). The tab that holds a lock reads the stream and hands every event to the others. When it closes, the
// lock goes to another tab, which goes on from the last cursor. Where locks or channels are missing, each tab has its own.

import { EventStream } from './stream.js';

/** @typedef {import('../types.js').ServerEvent} ServerEvent */
/** @typedef {import('../types.js').Connection} Connection */
/** @typedef {import('./net.js').Net} Net */

/**
 * What tabs tell each other.
 * @typedef {{kind: 'hello'} | {kind: 'event', event: ServerEvent} | {kind: 'signed-out'}
 *   | {kind: 'status', connection: Connection, cursor: string|null}} Note
 */

/** A leader passes on a sign of life at least every 20 s; one that is silent for this long has been frozen. */
const SILENCE_MS = 60_000;

export class SharedStream {
  #stopped = new AbortController();
  /** @type {EventStream|null} */
  #stream = null;
  /** @type {string|null} */
  #cursor = null;
  /** @type {BroadcastChannel|null} */
  #channel = null;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #silence;

  /**
   * @param {Net} net
   * @param {string} account Tabs of one account share.
   * @param {{onEvent: (event: ServerEvent) => void, onSignedOut: () => void}} handlers
   */
  constructor(net, account, handlers) {
    this.net = net;
    this.name = `mychat:${account}`;
    this.handlers = handlers;
  }

  start() {
    if (!navigator.locks || typeof BroadcastChannel === 'undefined') {
      this.#lead();
      return;
    }
    this.#channel = new BroadcastChannel(this.name);
    this.#channel.onmessage = (message) => this.#hear(message.data);
    this.#tell({ kind: 'hello' });
    this.#queue(false);
    this.#watch();
  }

  /** @param {{signedOut?: boolean}} [how] `signedOut` takes the other tabs along. */
  stop({ signedOut = false } = {}) {
    if (signedOut) this.#tell({ kind: 'signed-out' });
    this.#stopped.abort();
    this.#stream?.stop();
    this.#channel?.close();
    this.#channel = null;
    clearTimeout(this.#silence);
  }

  /** @param {boolean} steal Take the lock from a leader that has fallen silent. */
  #queue(steal) {
    const options = steal ? { steal: true } : { signal: this.#stopped.signal };
    navigator.locks
      .request(this.name, options, () => (this.#stopped.signal.aborted ? undefined : this.#lead()))
      .catch(() => {
        // Stopped, or another tab took the lock because this one had been frozen: follow it.
        this.#stream?.stop();
        this.#stream = null;
        if (!this.#stopped.signal.aborted) {
          this.#queue(false);
          this.#watch();
        }
      });
  }

  async #lead() {
    clearTimeout(this.#silence);
    const stream = new EventStream(this.net, this.#cursor, (event) => {
      this.#cursor = event.cursor;
      this.#tell({ kind: 'event', event });
      this.handlers.onEvent(event);
    });
    this.#stream = stream;
    const status = () => this.#report();
    this.net.addEventListener('status', status);
    await stream.run();
    this.net.removeEventListener('status', status);
  }

  #report() {
    this.#tell({ kind: 'status', connection: this.net.connection, cursor: this.#cursor });
  }

  /** @param {Note} note */
  #tell(note) {
    this.#channel?.postMessage(note);
  }

  /** @param {Note} note */
  #hear(note) {
    if (note.kind === 'signed-out') return this.handlers.onSignedOut();
    if (this.#stream) {
      if (note.kind === 'hello') this.#report();
      return;
    }
    if (note.kind === 'hello') return;
    this.#watch();
    if (note.kind === 'status') {
      this.#cursor = note.cursor ?? this.#cursor;
      const { state, region, base } = note.connection;
      this.net.update({ state, region, base });
    } else {
      this.#cursor = note.event.cursor ?? this.#cursor;
      this.handlers.onEvent(note.event);
    }
  }

  /** Starts the wait for the leader's next sign of life again. */
  #watch() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      if (!this.#stream && !this.#stopped.signal.aborted) this.#queue(true);
    }, SILENCE_MS);
  }
}
