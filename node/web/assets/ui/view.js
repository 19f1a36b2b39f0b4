// The base of the elements that show a part of the store: builds once, then draws again when a topic that it listens to
// changes, at most once a frame however many changes come.

import { store } from '../state/store.js';

/** @typedef {import('../state/store.js').Topic} Topic */

/** Frames do not come to pages in the background; these are drawn by the clock instead. */
const BACKGROUND_MS = 120;

export class View extends HTMLElement {
  /** @type {(() => void)[]} */
  #stops = [];
  /** @type {ReturnType<typeof setTimeout>|null} */
  #timer = null;

  connectedCallback() {
    this.build();
    this.render();
  }

  disconnectedCallback() {
    for (const stop of this.#stops) stop();
    this.#stops = [];
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** Makes the fixed parts and listens. */
  build() {}

  /** Brings the changing parts up to date. */
  render() {}

  /**
   * Draws again whenever a topic changes (for a space: only when it is about that space).
   * @param {Topic[]} topics
   * @param {string} [space]
   */
  follow(topics, space) {
    for (const topic of topics) {
      this.also(store.on(topic, (about) => (space === undefined || about === '' || about === space) && this.refresh()));
    }
  }

  /** @param {() => void} stop Called when the element leaves the page. */
  also(stop) {
    this.#stops.push(stop);
  }

  refresh() {
    if (this.#timer !== null || !this.isConnected) return;
    const draw = () => {
      if (this.#timer === null) return;
      clearTimeout(this.#timer);
      this.#timer = null;
      this.render();
    };
    this.#timer = setTimeout(draw, BACKGROUND_MS);
    if (!document.hidden) requestAnimationFrame(draw);
  }
}
