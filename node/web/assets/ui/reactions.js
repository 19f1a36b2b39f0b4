// Reactions under a message, and the small row of emoji to add one from.

import { messages as api } from '../api.js';
import { explain } from '../net/problem.js';
import { nameOf } from '../state/people.js';
import { store, toast } from '../state/store.js';
import { changeReaction } from '../state/timeline.js';
import { h } from './dom.js';
import { someNames } from './format.js';

/** @typedef {import('../types.js').Message} Message */

/** @type {[string, string][]} */
const OFFERED = [
  ['👍', 'Thumbs up'],
  ['❤️', 'Heart'],
  ['😂', 'Laughing'],
  ['🎉', 'Celebration'],
  ['👀', 'Looking'],
  ['😮', 'Surprised'],
  ['😢', 'Sad'],
  ['✅', 'Done'],
];

/** @param {Message} message @param {string} emoji */
async function toggle(message, emoji) {
  const mine = store.me?.id;
  if (!mine) return;
  const on = !(message.reactions[emoji] ?? []).includes(mine);
  changeReaction(message.space, message.id, emoji, mine, on);
  try {
    await api.react(message.space, message.id, emoji, on);
  } catch (error) {
    changeReaction(message.space, message.id, emoji, mine, !on);
    toast(explain(error));
  }
}

/** @param {Message} message @returns {HTMLElement[]} */
export function reactionChips(message) {
  const entries = Object.entries(message.reactions).filter(([, accounts]) => accounts.length > 0);
  if (entries.length === 0) return [];
  const chips = entries.map(([emoji, accounts]) => {
    const names = someNames(accounts.map((id) => (id === store.me?.id ? 'You' : nameOf(id))), 8);
    return h(
      'button',
      {
        type: 'button',
        class: 'chip',
        test: 'reaction',
        'data-emoji': emoji,
        title: names,
        'aria-label': `${emoji}, ${names}`,
        'aria-pressed': String(accounts.includes(store.me?.id ?? '')),
        onclick: () => toggle(message, emoji),
      },
      h('span', { class: 'emoji' }, emoji),
      h('span', null, accounts.length),
    );
  });
  return [h('div', { class: 'reactions' }, chips)];
}

/**
 * @param {Message} message
 * @param {() => void} close
 * @returns {HTMLElement[]}
 */
export function picker(message, close) {
  const buttons = OFFERED.map(([emoji, name]) =>
    h(
      'button',
      {
        type: 'button',
        class: 'icon-button emoji',
        'aria-label': name,
        title: name,
        'data-emoji': emoji,
        onclick: () => {
          close();
          toggle(message, emoji);
        },
      },
      emoji,
    ),
  );
  for (const [at, button] of buttons.entries()) {
    button.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        event.preventDefault();
        event.stopPropagation();
        close();
      }
      const step = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
      if (step !== 0) buttons[(at + step + buttons.length) % buttons.length]?.focus();
    });
  }
  return buttons;
}
