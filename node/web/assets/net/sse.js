// A parser of the event stream format (text/event-stream). Bytes go in as they come off the network, in pieces cut
// anywhere; whole events come out. It keeps to the WHATWG rules: CR, LF or CRLF end a line, an empty line ends an event.

/**
 * @typedef {object} RawEvent
 * @property {string} type
 * @property {string} data
 * @property {string|null} id Only when this event carried an id line.
 */

export class SseParser {
  #decoder = new TextDecoder('utf-8');
  #rest = '';
  #skipLineFeed = false;
  #type = '';
  /** @type {string[]} */
  #data = [];
  /** @type {string|null} */
  #id = null;
  /** The server's wish for the reconnection time in milliseconds, once it has sent one. */
  retry = /** @type {number|null} */ (null);

  /**
   * @param {Uint8Array} bytes
   * @returns {RawEvent[]} The events that these bytes completed.
   */
  push(bytes) {
    /** @type {RawEvent[]} */
    const events = [];
    let text = this.#decoder.decode(bytes, { stream: true });
    if (this.#skipLineFeed && text.length > 0) {
      if (text[0] === '\n') text = text.slice(1);
      this.#skipLineFeed = false;
    }
    text = this.#rest + text;
    let start = 0;
    for (let at = this.#rest.length; at < text.length; at++) {
      const char = text[at];
      if (char !== '\n' && char !== '\r') continue;
      this.#line(text.slice(start, at), events);
      if (char === '\r') {
        // The line feed of a CRLF may only come with the next piece.
        if (at + 1 === text.length) this.#skipLineFeed = true;
        else if (text[at + 1] === '\n') at++;
      }
      start = at + 1;
    }
    this.#rest = text.slice(start);
    return events;
  }

  /**
   * @param {string} line
   * @param {RawEvent[]} events
   */
  #line(line, events) {
    if (line === '') return this.#dispatch(events);
    const colon = line.indexOf(':');
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'event') this.#type = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'retry' && /^\d+$/.test(value)) this.retry = Number(value);
  }

  /** @param {RawEvent[]} events */
  #dispatch(events) {
    if (this.#data.length > 0) {
      events.push({ type: this.#type || 'message', data: this.#data.join('\n'), id: this.#id });
    }
    this.#type = '';
    this.#data = [];
    this.#id = null;
  }
}
