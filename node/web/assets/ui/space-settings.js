// The dialog in which owners and admins change a space.

import { spaces as api } from '../api.js';
import { putSpace } from '../state/spaces.js';
import { store } from '../state/store.js';
import { openDialog } from './dialog.js';
import { h } from './dom.js';
import { choice, errorLine, field, submits } from './form.js';
import { VISIBILITIES } from './new-space.js';

/** @param {string} id */
export function openSpaceSettings(id) {
  const space = store.spaces.get(id);
  if (!space) return;
  openDialog({
    title: 'Edit space',
    content: (close) => {
      const error = errorLine();
      const form = h(
        'form',
        { test: 'edit-space-form' },
        field({ label: 'Name', name: 'name', value: space.name, required: true }),
        field({ label: 'Topic', name: 'topic', value: space.topic ?? '' }),
        choice({ label: 'Who can join', name: 'visibility', value: space.visibility, options: VISIBILITIES }),
        error,
        h('div', { class: 'dialog-actions' }, h('button', { type: 'submit', class: 'button primary' }, 'Save')),
      );
      submits(form, error, async ({ name = '', topic = '', visibility = '' }) => {
        /** @type {{name?: string, topic?: string, visibility?: string}} */
        const change = {};
        if (name.trim() !== space.name) change.name = name.trim();
        if (topic.trim() !== (space.topic ?? '')) change.topic = topic.trim();
        if (visibility !== space.visibility) change.visibility = visibility;
        if (Object.keys(change).length > 0) {
          const { name, topic, visibility } = await api.update(id, change);
          putSpace({ id, name, topic, visibility });
        }
        close();
      });
      return [form];
    },
  });
}
