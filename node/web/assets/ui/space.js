// One open space: its header, its timeline, who is typing, the composer, and beside them the panel with its members.

import { goHome } from '../state/route.js';
import { loadMembers, titleOf } from '../state/spaces.js';
import { nameOf } from '../state/people.js';
import { store } from '../state/store.js';
import { typists } from '../state/typing.js';
import { net } from '../net/net.js';
import { MyChatComposer } from './composer.js';
import { h, iconButton } from './dom.js';
import { someNames } from './format.js';
import { openInvite } from './invite.js';
import { MyChatMembers } from './members.js';
import { MyChatStatus } from './status.js';
import { MyChatTimeline } from './timeline.js';
import { View } from './view.js';

const BANNER = {
  live: '',
  reconnecting: 'The connection was lost. Looking for another server…',
  offline: 'Offline. What you write is kept here and sent as soon as a server can be reached.',
};

export class MyChatSpace extends View {
  #title = h('h2', { class: 'space-title' });
  #topic = h('p', { class: 'space-topic' });
  #banner = h('p', { class: 'banner', hidden: true });
  #typing = h('p', { class: 'typing', test: 'typing' });
  #invite = iconButton('invite', 'Invite people', () => openInvite(this.space), { test: 'invite' });
  #people = iconButton('people', 'Members', () => this.#togglePanel(), { test: 'members', 'aria-expanded': 'false' });
  /** @type {MyChatMembers|null} */
  #panel = null;

  /** @param {string} space */
  constructor(space) {
    super();
    this.space = space;
    this.timeline = new MyChatTimeline(space);
    this.composer = new MyChatComposer(space);
  }

  /** @override */
  build() {
    this.replaceChildren(
      h(
        'div',
        { class: 'conversation' },
        h(
          'header',
          { class: 'space-head' },
          iconButton('back', 'Back to the list of spaces', goHome, { class: 'icon-button back' }),
          h('div', { class: 'space-heading' }, this.#title, this.#topic),
          new MyChatStatus({ small: true }),
          this.#invite,
          this.#people,
        ),
        this.#banner,
        this.timeline,
        this.#typing,
        this.composer,
      ),
    );
    this.follow(['spaces', 'typing', 'people', 'members'], this.space);
    this.also(store.on('connection', () => this.#showBanner()));
    this.addEventListener('edit-last', () => this.timeline.editLast() || this.composer.focus());
    this.addEventListener('to-composer', () => this.composer.focus());
    this.addEventListener('to-timeline', () => this.timeline.focusLast());
    this.addEventListener('reply', (event) => {
      this.composer.replyTo(/** @type {CustomEvent<string>} */ (event).detail);
    });
    this.addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.#panel && !event.defaultPrevented) this.#togglePanel();
    });
    this.#showBanner();
    loadMembers(this.space).catch(() => {
      // The panel says so when it is opened.
    });
    // On a phone, focus would bring up the keyboard over what is to be read.
    if (matchMedia('(pointer: fine)').matches && !store.target) this.composer.focus();
  }

  /** @override */
  render() {
    const space = store.spaces.get(this.space);
    if (!space) return;
    this.#title.textContent = titleOf(space);
    this.#topic.textContent = space.topic ?? '';
    this.#topic.title = space.topic ?? '';
    this.#invite.hidden = space.visibility === 'direct';
    const names = typists(this.space).map(nameOf);
    this.#typing.textContent = names.length === 0 ? '' : `${someNames(names)} ${names.length === 1 ? 'is' : 'are'} typing…`;
  }

  #showBanner() {
    const text = BANNER[net.connection.state];
    if (this.#banner.textContent !== text) this.#banner.textContent = text;
    this.#banner.hidden = text === '';
    this.#banner.dataset.state = net.connection.state;
  }

  #togglePanel() {
    if (this.#panel) {
      this.#panel.remove();
      this.#panel = null;
      this.#people.focus();
    } else {
      this.#panel = new MyChatMembers(this.space, () => this.#togglePanel());
      this.append(this.#panel);
    }
    this.#people.setAttribute('aria-expanded', String(this.#panel !== null));
  }
}

customElements.define('mychat-space', MyChatSpace);
