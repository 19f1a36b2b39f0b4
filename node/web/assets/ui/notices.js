// Short notices over the page, and the hidden line through which screen readers hear of new messages.

import { store } from '../state/store.js';
import { h } from './dom.js';
import { View } from './view.js';

const SHOW_MS = 5_000;
const MOST = 3;

export class MyChatNotices extends View {
  #toasts = h('div', { class: 'toasts', role: 'status' });
  #spoken = h('div', { class: 'visually-hidden', 'aria-live': 'polite', test: 'announcer' });
  #state = '';

  /** @override */
  build() {
    this.replaceChildren(this.#toasts, this.#spoken);
    this.also(store.on('toast', (text) => this.#toast(text)));
    this.also(store.on('announce', (text) => this.#announce(text)));
  }

  /** @param {string} text */
  #toast(text) {
    const toast = h('p', { class: 'toast' }, text);
    toast.addEventListener('click', () => toast.remove());
    while (this.#toasts.childElementCount >= MOST) this.#toasts.firstElementChild?.remove();
    this.#toasts.append(toast);
    setTimeout(() => toast.remove(), SHOW_MS);
  }

  /** @param {string} text */
  #announce(text) {
    if (text === this.#state) text += ' '; // the same words twice are news too
    this.#state = text;
    this.#spoken.textContent = text.slice(0, 300);
  }
}

customElements.define('mychat-notices', MyChatNotices);
