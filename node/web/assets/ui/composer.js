// Where messages are written: Enter sends, Shift+Enter breaks the line, the up arrow in an empty box edits the last message.

import { send } from '../state/outbox.js';
import { nameOf } from '../state/people.js';
import { titleOf } from '../state/spaces.js';
import { store } from '../state/store.js';
import { timelineOf } from '../state/timeline.js';
import { tellTyping, typingSent } from '../state/typing.js';
import { h, icon, iconButton } from './dom.js';
import { plainOf, shorten } from './format.js';
import { grow } from './grow.js';
import { View } from './view.js';

export class MyChatComposer extends View {
  #text = h('textarea', { rows: 1, test: 'composer', enterkeyhint: 'send', autocapitalize: 'sentences', name: 'message' });
  #send = h(
    'button',
    { type: 'submit', class: 'send', test: 'send', 'aria-label': 'Send', title: 'Send (Enter)' },
    icon('send'),
  );
  #replying = h('div', { class: 'replying', hidden: true });
  /** @type {string|null} */
  #replyTo = null;

  /** @param {string} space */
  constructor(space) {
    super();
    this.space = space;
  }

  /** @override */
  build() {
    const form = h('form', { class: 'composer' }, this.#text, this.#send);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener('keydown', (event) => this.#key(event));
    this.#text.addEventListener('input', () => this.#typed());
    this.replaceChildren(this.#replying, form);
    this.#text.value = store.drafts.get(this.space) ?? '';
    requestAnimationFrame(() => grow(this.#text));
    this.follow(['spaces', 'members', 'people'], this.space);
  }

  /** @override */
  render() {
    const space = store.spaces.get(this.space);
    const label = `Message ${space ? titleOf(space) : ''}`;
    if (this.#text.placeholder !== label) {
      this.#text.placeholder = label;
      this.#text.setAttribute('aria-label', label);
    }
    this.#send.disabled = this.#text.value.trim() === '';
  }

  /** @override */
  focus() {
    this.#text.focus();
  }

  /** @param {string} id */
  replyTo(id) {
    const message = timelineOf(this.space).items.find((item) => item.id === id);
    if (!message) return;
    this.#replyTo = id;
    this.#replying.replaceChildren(
      h('span', null, 'Replying to ', h('strong', null, nameOf(message.author)), ` · ${shorten(plainOf(message), 80)}`),
      iconButton('close', 'Do not reply to this', () => this.#endReply()),
    );
    this.#replying.hidden = false;
    this.focus();
  }

  #endReply() {
    this.#replyTo = null;
    this.#replying.hidden = true;
    this.focus();
  }

  #typed() {
    const { value } = this.#text;
    store.drafts.set(this.space, value);
    grow(this.#text);
    this.render();
    if (value.trim()) tellTyping(this.space);
  }

  #submit() {
    const body = this.#text.value.trim();
    if (!body) return;
    send(this.space, body, this.#replyTo);
    this.#text.value = '';
    store.drafts.delete(this.space);
    typingSent();
    grow(this.#text);
    this.#endReply();
    this.render();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === 'ArrowUp' && this.#text.value === '' && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      this.dispatchEvent(new CustomEvent('edit-last', { bubbles: true }));
    } else if (event.key === 'Escape' && this.#replyTo) {
      event.preventDefault();
      this.#endReply();
    }
  }
}

customElements.define('mychat-composer', MyChatComposer);
