// Changes of one space of the list. Reads of the list that are on their way hear of them, since their answers may be older.

import { Meanwhile } from './meanwhile.js';
import { store } from './store.js';

/** @typedef {import('../types.js').Space} Space */

/** A change of a space; undefined stands for one that we are not in. @typedef {(space: Space|undefined) => Space|undefined} Change */

/** What is told of spaces while they are read. @type {Meanwhile<Change>} */
export const spaceReads = new Meanwhile();

/**
 * Changes a space as something new says, if it is held.
 * @param {string} id
 * @param {(space: Space) => Space} change Gives back the same object where there is nothing to change.
 */
export function changeSpace(id, change) {
  spaceReads.tell(id, (space) => space && change(space));
  const before = store.spaces.get(id);
  const after = before && change(before);
  if (!after || after === before) return;
  store.spaces.set(id, after);
  store.changed('spaces', id);
}
