// The list of spaces with their unread counts, the ways to more spaces, and at its foot who is signed in and the status line.

import { isOnline } from '../state/presence.js';
import { spaceAddress } from '../state/route.js';
import { signOut } from '../state/session.js';
import { othersOf, sortedSpaces, titleOf } from '../state/spaces.js';
import { store } from '../state/store.js';
import { updateAvatar } from './avatar.js';
import { openBrowse } from './browse.js';
import { h, icon, iconButton, reconcile } from './dom.js';
import { countText } from './format.js';
import { openNewSpace } from './new-space.js';
import { openSettings } from './settings.js';
import { MyChatStatus } from './status.js';
import { openSwitcher } from './switcher.js';
import { View } from './view.js';

/** @typedef {import('../types.js').Space} Space */

export class MyChatSidebar extends View {
  #list = h('ul', { class: 'space-list', test: 'space-list', 'aria-label': 'Your spaces' });
  #avatar = h('span', { class: 'avatar', 'aria-hidden': 'true' });
  #name = h('span', { class: 'me-name' });
  #handle = h('span', { class: 'me-handle' });

  /** @override */
  build() {
    const key = /Mac|iPhone|iPad/.test(navigator.platform) ? '⌘ K' : 'Ctrl K';
    const jump = h(
      'button',
      { type: 'button', class: 'jump', 'aria-label': `Go to a space, ${key}`, title: 'Go to a space', onclick: openSwitcher },
      h('kbd', null, key),
    );
    const me = h(
      'button',
      { type: 'button', class: 'me', test: 'settings', title: 'Profile and settings', onclick: openSettings },
      this.#avatar,
      h('span', { class: 'me-text' }, this.#name, this.#handle),
      icon('settings'),
    );
    this.replaceChildren(
      h(
        'nav',
        { class: 'sidebar', 'aria-label': 'Spaces' },
        h(
          'div',
          { class: 'sidebar-head' },
          h('img', { src: '/assets/favicon.svg', alt: '', width: 26, height: 26 }),
          h('h1', null, 'MyChat'),
          jump,
        ),
        h(
          'div',
          { class: 'sidebar-title' },
          h('h2', null, 'Spaces'),
          iconButton('browse', 'Browse public spaces', openBrowse, { test: 'browse-spaces' }),
          iconButton('plus', 'Make a space', openNewSpace, { test: 'new-space' }),
        ),
        this.#list,
        h(
          'div',
          { class: 'sidebar-foot' },
          h('div', { class: 'me-row' }, me, iconButton('signout', 'Sign out', () => signOut(), { test: 'signout' })),
          new MyChatStatus(),
        ),
      ),
    );
    this.follow(['spaces', 'route', 'session', 'people', 'members', 'presence']);
  }

  /** @override */
  render() {
    if (store.me) {
      updateAvatar(this.#avatar, store.me.id);
      this.#name.textContent = store.me.name;
      this.#handle.textContent = store.me.handle ? `@${store.me.handle}` : (store.me.email ?? '');
    }
    reconcile(this.#list, sortedSpaces(), {
      key: (space) => space.id,
      make: (space) => this.#item(space),
      update: (element, space) => this.#update(element, space),
    });
  }

  /** @param {Space} space */
  #item(space) {
    const link = h(
      'a',
      { class: 'space-item', href: spaceAddress(space.id), test: 'space-item', 'data-space': space.id },
      h('span', { class: 'space-mark' }),
      h('span', { class: 'space-name' }),
    );
    return h('li', null, link);
  }

  /** @param {HTMLLIElement} element @param {Space} space */
  #update(element, space) {
    const link = /** @type {HTMLAnchorElement} */ (element.firstElementChild);
    const mark = /** @type {HTMLElement} */ (link.querySelector('.space-mark'));
    const kind = space.visibility === 'direct' ? 'person' : space.visibility === 'public' ? 'hash' : 'lock';
    if (mark.dataset.kind !== kind) {
      mark.dataset.kind = kind;
      mark.replaceChildren(icon(kind));
    }
    /** @type {HTMLElement} */ (link.querySelector('.space-name')).textContent = titleOf(space);
    link.classList.toggle('online', kind === 'person' && othersOf(space).some(isOnline));
    link.title = space.topic ?? '';
    link.classList.toggle('has-unread', space.unread > 0);
    if (space.id === store.open) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
    const badge = link.querySelector('.unread');
    if (space.unread > 0) {
      const shown = badge ?? link.appendChild(h('span', { class: 'unread', test: 'unread' }));
      shown.textContent = countText(space.unread);
      shown.setAttribute('aria-label', `${space.unread} unread`);
    } else {
      badge?.remove();
    }
  }
}

customElements.define('mychat-sidebar', MyChatSidebar);
