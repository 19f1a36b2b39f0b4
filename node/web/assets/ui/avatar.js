// A round mark for a person: the initials of their name on one of eight colours, always the same one for an account.

import { person } from '../state/people.js';
import { h } from './dom.js';

const TONES = 8;

/**
 * @param {string} id
 * @param {string} [size] `small` or nothing.
 */
export function avatar(id, size = '') {
  const element = h('span', { class: `avatar ${size}`, 'aria-hidden': 'true' });
  updateAvatar(element, id);
  return element;
}

/** @param {Element} element @param {string} id */
export function updateAvatar(element, id) {
  const text = initials(person(id)?.name ?? '');
  if (element.textContent !== text) element.textContent = text;
  element.setAttribute('data-tone', String(tone(id)));
}

/** @param {string} name */
function initials(name) {
  const words = name.trim().split(/[\s_.-]+/).filter(Boolean);
  const first = [...(words[0] ?? '')][0] ?? '';
  const last = words.length > 1 ? ([...(words.at(-1) ?? '')][0] ?? '') : '';
  return (first + last).toUpperCase();
}

/** @param {string} id */
function tone(id) {
  let sum = 0;
  for (let at = 0; at < id.length; at++) sum = (sum * 31 + id.charCodeAt(at)) >>> 0;
  return sum % TONES;
}
