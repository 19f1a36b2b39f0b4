// The status line: the region of the node in use, the round trip to it, and whether events are coming in.

import { announce, store } from '../state/store.js';
import { net } from '../net/net.js';
import { h } from './dom.js';
import { View } from './view.js';

const WORDS = { live: 'Live', reconnecting: 'Connecting…', offline: 'Offline' };

export class MyChatStatus extends View {
  #state = h('span', { class: 'status-state' });
  #region = h('span', { class: 'status-region' });
  #latency = h('span', { class: 'status-latency' });
  #before = '';
  #small;

  /** @param {{small?: boolean}} [how] `small` beside the name of a space on a phone, where the list with the line is out of sight. */
  constructor({ small = false } = {}) {
    super();
    this.#small = small;
  }

  /** @override */
  build() {
    this.dataset.test = this.#small ? 'status-small' : 'status';
    this.classList.toggle('small', this.#small);
    this.replaceChildren(h('span', { class: 'status-dot', 'aria-hidden': 'true' }), this.#state, this.#region, this.#latency);
    this.follow(['connection', 'session']);
  }

  /** @override */
  render() {
    const { region, latency, base, state: linkState } = net.connection;
    // Before the sign-in there is no stream; then a node that answers is all there is to tell.
    const state = store.screen === 'chat' ? linkState : latency === null ? 'reconnecting' : 'live';
    const ms = latency === null ? '' : String(Math.max(1, Math.round(latency)));
    this.dataset.state = state;
    this.dataset.region = region;
    this.dataset.latency = ms;
    this.#state.textContent = state === 'reconnecting' && this.#before ? 'Reconnecting…' : WORDS[state];
    this.#region.textContent = region;
    this.#latency.textContent = ms && state !== 'offline' ? `${ms} ms` : '';
    this.title = `${this.#state.textContent} Talking to ${base}`;
    if (this.#before && this.#before !== state && !this.#small) {
      announce(state === 'live' ? `Connected again, region ${region}.` : this.#state.textContent);
    }
    if (state === 'live' || this.#before) this.#before = state;
  }
}

customElements.define('mychat-status', MyChatStatus);
