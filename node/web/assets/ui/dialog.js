// Dialogs, on the browser's own <dialog>: it keeps the focus inside, closes on Escape, and gives the focus back.

import { explain } from '../net/problem.js';
import { h, iconButton } from './dom.js';
import { errorLine, showError } from './form.js';

let serial = 0;

/**
 * @param {{title: string, test?: string, kind?: string, content: (close: () => void) => Node[]}} options
 * @returns {HTMLDialogElement}
 */
export function openDialog({ title, test, kind = '', content }) {
  const id = `dialog-${++serial}`;
  const dialog = h('dialog', { class: `dialog ${kind}`, 'aria-labelledby': id, test });
  const close = () => dialog.close();
  dialog.append(
    h(
      'div',
      { class: 'dialog-frame' },
      h('header', { class: 'dialog-head' }, h('h2', { id }, title), iconButton('close', 'Close', close)),
      h('div', { class: 'dialog-body' }, content(close)),
    ),
  );
  dialog.addEventListener('close', () => dialog.remove());
  // The frame fills the dialog, so a click on the dialog itself is one on the backdrop.
  dialog.addEventListener('pointerdown', (event) => event.target === dialog && close());
  document.body.append(dialog);
  dialog.showModal();
  const first = dialog.querySelector('[autofocus], .dialog-body input:not([readonly]), .dialog-body button');
  if (first instanceof HTMLElement) first.focus();
  return dialog;
}

/**
 * Asks before something that can't be taken back.
 * @param {{title: string, text: string, action: string, run: () => Promise<unknown>}} options
 */
export function confirmDialog({ title, text, action, run }) {
  openDialog({
    title,
    kind: 'small',
    content: (close) => {
      const error = errorLine();
      const yes = h('button', { type: 'button', class: 'button danger', autofocus: true }, action);
      yes.addEventListener('click', async () => {
        yes.disabled = true;
        try {
          await run();
          close();
        } catch (problem) {
          showError(error, explain(problem));
          yes.disabled = false;
        }
      });
      const no = h('button', { type: 'button', class: 'button', onclick: close }, 'Cancel');
      return [h('p', null, text), error, h('div', { class: 'dialog-actions' }, no, yes)];
    },
  });
}
