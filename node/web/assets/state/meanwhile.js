// What is told while an answer is on its way is newer than the answer, and must not be undone by it: it is noted, and gone
// through again on top of the answer.

/** How much is noted during one read. Beyond it the oldest goes: an answer that takes so long is likely to have that. */
const NOTED_MAX = 5_000;

/** One read on its way. @template T */
class Read {
  /** @type {Map<string, T[]>} */
  #told = new Map();
  #count = 0;

  /** @param {number} number */
  constructor(number) {
    /** Reads that begin later have higher ones. What was told before a read began is in its answer. */
    this.number = number;
  }

  /** @param {string} about @param {T} what */
  note(about, what) {
    const told = this.#told.get(about);
    if (told) told.push(what);
    else this.#told.set(about, [what]);
    this.#count += 1;
    if (this.#count > NOTED_MAX) this.#forgetOldest();
  }

  #forgetOldest() {
    for (const [about, told] of this.#told) {
      this.#told.delete(about);
      this.#count -= told.length;
      return;
    }
  }

  /** What has been told of it since the read began, in order. @param {string} about */
  told(about) {
    return this.#told.get(about) ?? [];
  }

  /** All of which something has been told. */
  about() {
    return [...this.#told.keys()];
  }
}

/**
 * The reads of one kind that are on their way.
 * @template T
 */
export class Meanwhile {
  /** @type {Set<Read<T>>} */
  #reads = new Set();
  #begun = 0;

  /** A read begins; it has to be ended. @returns {Read<T>} */
  begin() {
    this.#begun += 1;
    /** @type {Read<T>} */
    const read = new Read(this.#begun);
    this.#reads.add(read);
    return read;
  }

  /** @param {Read<T>} read */
  end(read) {
    this.#reads.delete(read);
  }

  /**
   * @param {string} about
   * @param {T} what
   * @param {number} [as] The number of the read whose answer said so, which reads that began after it know better.
   */
  tell(about, what, as = Infinity) {
    for (const read of this.#reads) if (read.number < as) read.note(about, what);
  }
}
