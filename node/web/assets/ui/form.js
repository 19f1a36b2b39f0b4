// Forms: labelled fields, and sending with the button held and the error shown where it belongs.

import { explain } from '../net/problem.js';
import { h } from './dom.js';

let serial = 0;

/**
 * @param {{label: string, name: string, type?: string, value?: string, hint?: string, required?: boolean, autocomplete?: string,
 *   placeholder?: string, maxlength?: number, spellcheck?: boolean}} options
 */
export function field({ label, name, hint, type = 'text', value = '', spellcheck, ...rest }) {
  const id = `field-${++serial}`;
  const input = h('input', {
    id,
    name,
    type,
    spellcheck: spellcheck === undefined ? undefined : String(spellcheck),
    'aria-describedby': hint ? `${id}-hint` : undefined,
    ...rest,
  });
  input.value = value;
  return h(
    'div',
    { class: 'field' },
    h('label', { for: id }, label),
    input,
    hint ? h('p', { class: 'hint', id: `${id}-hint` }, hint) : null,
  );
}

/**
 * @param {{label: string, name: string, value: string, options: {value: string, label: string}[]}} options
 */
export function choice({ label, name, value, options }) {
  const id = `field-${++serial}`;
  const select = h(
    'select',
    { id, name },
    options.map((option) => h('option', { value: option.value }, option.label)),
  );
  select.value = value;
  return h('div', { class: 'field' }, h('label', { for: id }, label), select);
}

/** The line in a form where its error is shown. */
export const errorLine = () => h('p', { class: 'form-error', role: 'alert', hidden: true });

/**
 * @param {HTMLElement} line
 * @param {string} text Empty for none.
 */
export function showError(line, text) {
  line.textContent = text;
  line.hidden = text === '';
}

/**
 * Makes a form call `action` with its fields when it is submitted; while that runs its button is held.
 * @param {HTMLFormElement} form
 * @param {HTMLElement} error
 * @param {(fields: Record<string, string>) => Promise<void>} action
 */
export function submits(form, error, action) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = /** @type {HTMLButtonElement|null} */ (form.querySelector('button[type=submit]'));
    if (button?.disabled) return;
    /** @type {Record<string, string>} */
    const fields = {};
    for (const [name, value] of new FormData(form)) if (typeof value === 'string') fields[name] = value;
    showError(error, '');
    if (button) button.disabled = true;
    form.setAttribute('aria-busy', 'true');
    try {
      await action(fields);
    } catch (problem) {
      showError(error, explain(problem));
    } finally {
      if (button) button.disabled = false;
      form.removeAttribute('aria-busy');
    }
  });
}
