// The frame of the conversations: the list of spaces beside the open space. On a phone one of them shows at a time.

import { goSpace } from '../state/route.js';
import { store } from '../state/store.js';
import { openBrowse } from './browse.js';
import { h } from './dom.js';
import { openNewSpace } from './new-space.js';
import { MyChatSidebar } from './sidebar.js';
import { MyChatSpace } from './space.js';
import { View } from './view.js';

const LAST_SPACE = 'mychat-last-space';

export class MyChatChat extends View {
  #pane = h('main', { class: 'pane' });
  #shown = '';
  #restored = false;

  /** @override */
  build() {
    this.replaceChildren(new MyChatSidebar(), this.#pane);
    this.follow(['route', 'spaces']);
  }

  /** @override */
  render() {
    this.#restore();
    this.dataset.pane = store.open ? 'space' : 'list';
    const known = store.openSpace !== undefined;
    const shown = store.open && known ? store.open : `none ${store.open} ${store.spacesState} ${store.spaces.size}`;
    if (shown === this.#shown) return;
    this.#shown = shown;
    if (store.open && known) {
      this.#pane.replaceChildren(new MyChatSpace(store.open));
      save(store.open);
    } else {
      this.#pane.replaceChildren(this.#empty());
    }
  }

  /** Where there is room, the space of the last visit opens by itself. */
  #restore() {
    if (this.#restored || store.spacesState !== 'ready') return;
    this.#restored = true;
    const last = saved();
    if (!store.open && !store.invitation && last && store.spaces.has(last) && matchMedia('(min-width: 700px)').matches) {
      goSpace(last);
    }
  }

  #empty() {
    if (store.open && store.spacesState === 'ready') {
      return this.#note('You are not in this space', 'It may be private, or gone. Ask a member to invite you.', false);
    }
    if (store.spacesState === 'failed') return this.#note('Your spaces can’t be read', store.spacesProblem, false);
    if (store.spacesState !== 'ready') return h('div', { class: 'empty' }, h('p', null, 'Reading your spaces…'));
    if (store.spaces.size > 0) {
      return this.#note('Choose a space', 'Pick one from the list, or press Ctrl K (⌘ K) to go to one by name.', false);
    }
    return this.#note('Nothing here yet', 'Make a space and invite others, or look at the public ones.', true);
  }

  /**
   * @param {string} title
   * @param {string} text
   * @param {boolean} offer
   */
  #note(title, text, offer) {
    const actions = h(
      'div',
      { class: 'empty-actions' },
      h('button', { type: 'button', class: 'button primary', onclick: openNewSpace }, 'Make a space'),
      h('button', { type: 'button', class: 'button', onclick: openBrowse }, 'Browse public spaces'),
    );
    return h('div', { class: 'empty' }, h('h2', null, title), h('p', null, text), offer ? actions : null);
  }
}

/** @param {string} id */
function save(id) {
  try {
    localStorage.setItem(LAST_SPACE, id);
  } catch {
    // Not worth a word.
  }
}

function saved() {
  try {
    return localStorage.getItem(LAST_SPACE);
  } catch {
    return null;
  }
}

customElements.define('mychat-chat', MyChatChat);
