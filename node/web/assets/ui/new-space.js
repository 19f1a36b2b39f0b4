// The dialog in which a space is made.

import { spaces as api } from '../api.js';
import { goSpace } from '../state/route.js';
import { putSpace } from '../state/spaces.js';
import { openDialog } from './dialog.js';
import { h } from './dom.js';
import { choice, errorLine, field, submits } from './form.js';

export const VISIBILITIES = [
  { value: 'private', label: 'Private: by invitation only' },
  { value: 'public', label: 'Public: anyone can find and join it' },
];

export function openNewSpace() {
  openDialog({
    title: 'Make a space',
    content: (close) => {
      const error = errorLine();
      const form = h(
        'form',
        { test: 'new-space-form' },
        field({ label: 'Name', name: 'name', required: true, placeholder: 'For example: Release planning', maxlength: 200 }),
        field({ label: 'Topic', name: 'topic', hint: 'What it is for. You can leave it empty.', maxlength: 1000 }),
        choice({ label: 'Who can join', name: 'visibility', value: 'private', options: VISIBILITIES }),
        error,
        h('div', { class: 'dialog-actions' }, h('button', { type: 'submit', class: 'button primary' }, 'Make space')),
      );
      submits(form, error, async ({ name = '', topic = '', visibility = 'private' }) => {
        const wanted = { name: name.trim(), visibility, ...(topic.trim() ? { topic: topic.trim() } : {}) };
        const space = await api.create(wanted);
        putSpace({ ...space, role: space.role ?? 'owner' });
        close();
        goSpace(space.id);
      });
      return [form];
    },
  });
}
