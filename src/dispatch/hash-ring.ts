/**
 * Consistent hash ring: a key finds the same replica as long as it is there, and a replica that joins
 * or leaves moves about 1/N of the keys. Pure; rebuilt when membership changes, never for a load.
 *
 *   points   150 per replica, hash(identity, i)        (System B: 150 virtual nodes)
 *   owner    of a key: the first point at or clockwise behind hash(key)
 *
 * Identities are hashes of what names a replica, so gateways with the same replicas agree. The
 * hash is ours and not the platform's for the same reason.
 */
import { NONE } from './candidates.ts';

/** Share of a replica deviates by about 1 / sqrt(150) = 8 %. */
const pointsPerMember = 150;

export interface RingMember {
  readonly row: number;
  readonly identity: number;
}

export class HashRing {
  /** Positions in ascending order, as uint32, and the row that owns each. */
  #points = new Uint32Array(0);
  #rows = new Int32Array(0);

  get length(): number {
    return this.#points.length;
  }

  /** Milliseconds for hundreds of replicas: the scheduler does this between two decisions. */
  rebuild(members: readonly RingMember[]): void {
    const { length } = members;
    const count = length * pointsPerMember;
    // Equal positions belong to the member with the lower identity, on every gateway.
    const ordered = [...members].sort((a, b) => a.identity - b.identity);
    // Position and place in the list as one number, so that the sort is one of plain numbers.
    const keys = new Float64Array(count);
    let k = 0;
    for (const [place, { identity }] of ordered.entries()) {
      for (let i = 0; i < pointsPerMember; i++) keys[k++] = hashPair(identity, i) * length + place;
    }
    keys.sort();
    const rows = Int32Array.from(ordered, ({ row }) => row);
    this.#points = new Uint32Array(count);
    this.#rows = new Int32Array(count);
    for (k = 0; k < count; k++) {
      const key = keys[k] as number;
      const point = Math.floor(key / length);
      this.#points[k] = point;
      this.#rows[k] = rows[key - point * length] as number;
    }
  }

  /** Index of the point that owns the key; NONE on an empty ring. */
  locate(key0: number, key1: number): number {
    const { length } = this.#points;
    if (length === 0) return NONE;
    const at = hashPair(key0, key1);
    let low = 0;
    let high = length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#points[middle] as number) < at) low = middle + 1;
      else high = middle;
    }
    return low === length ? 0 : low;
  }

  /** The row that owns the point `steps` clockwise behind `index`. */
  rowAt(index: number, steps: number): number {
    const at = index + steps;
    return this.#rows[at < this.#rows.length ? at : at - this.#rows.length] as number;
  }
}

/** uint32 from two int32; every bit of either reaches every bit of the result (MurmurHash3's finaliser). */
function hashPair(a: number, b: number): number {
  let h = Math.imul(a ^ 0x9e3779b1, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15) ^ b, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
