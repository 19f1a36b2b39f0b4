// The box in which a message is edited in its place: Enter saves, Shift+Enter breaks the line, Escape leaves it as it was.

import { explain } from '../net/problem.js';
import { h } from './dom.js';
import { errorLine, showError } from './form.js';
import { grow } from './grow.js';

/**
 * @param {string} body
 * @param {(text: string) => Promise<void>} save
 * @param {() => void} done Called after saving or leaving.
 */
export function editor(body, save, done) {
  const error = errorLine();
  const text = h('textarea', { class: 'input', 'aria-label': 'Edit message', rows: 1, test: 'editor' });
  text.value = body;
  const button = h('button', { type: 'button', class: 'button primary', onclick: () => finish() }, 'Save');
  const cancel = h('button', { type: 'button', class: 'button', onclick: done }, 'Cancel');
  const finish = async () => {
    const value = text.value.trim();
    if (!value) return showError(error, 'A message can’t be empty. To remove it, delete it.');
    if (button.disabled) return;
    button.disabled = true;
    try {
      await save(value);
      done();
    } catch (problem) {
      showError(error, explain(problem));
      button.disabled = false;
    }
  };
  text.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      finish();
    } else if (event.key === 'Escape') {
      event.preventDefault();
      event.stopPropagation();
      done();
    }
  });
  text.addEventListener('focus', () => {
    grow(text);
    text.setSelectionRange(text.value.length, text.value.length);
  });
  text.addEventListener('input', () => grow(text));
  return h('div', { class: 'editor' }, text, error, h('div', { class: 'editor-actions' }, cancel, button));
}
