// The outermost element: shows the sign-in screen or the conversations, and what pops up over either.

import { store } from '../state/store.js';
import { hasPending } from '../state/outbox.js';
import { h } from './dom.js';
import { MyChatAuth } from './auth.js';
import { MyChatChat } from './chat.js';
import { MyChatNotices } from './notices.js';
import { View } from './view.js';

class MyChatApp extends View {
  #shown = '';
  #screen = h('div', { class: 'screen' });

  /** @override */
  build() {
    this.replaceChildren(this.#screen, new MyChatNotices());
    this.follow(['session', 'spaces']);
    const guard = (/** @type {BeforeUnloadEvent} */ event) => hasPending() && event.preventDefault();
    globalThis.addEventListener('beforeunload', guard);
    this.also(() => globalThis.removeEventListener('beforeunload', guard));
  }

  /** @override */
  render() {
    document.title = store.unread > 0 ? `(${store.unread}) MyChat` : 'MyChat';
    if (this.#shown === store.screen) return;
    if (this.#shown !== '') for (const dialog of document.querySelectorAll('dialog[open]')) dialog.remove();
    this.#shown = store.screen;
    this.#screen.replaceChildren(this.#make());
  }

  #make() {
    if (store.screen === 'auth') return new MyChatAuth();
    if (store.screen === 'chat') return new MyChatChat();
    const lost = store.screen === 'unreachable';
    return h('p', { class: 'starting', role: 'status' }, lost ? 'No server can be reached. Still trying…' : 'Starting MyChat…');
  }
}

customElements.define('mychat-app', MyChatApp);
