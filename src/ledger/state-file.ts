/**
 * Where the ledger goes on after a restart: cursors of every reader, what was spent up to those of the
 * tally, and what it had heard of other gateways, in one JSON file that is replaced as a whole. Ledger thread.
 *
 * Whichever process wrote it, what it says is true of the files: at worst it is old, and then events come
 * again that were delivered since. Without one, or with one that cannot be read, the ledger begins with the
 * oldest files there are.
 */
import { open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { threadId } from 'node:worker_threads';
import type { SavedJournal } from './journal.ts';
import type { Cursor } from './segment.ts';
import type { SavedGateway, SavedHeard } from './sharing.ts';
import type { SavedSpending } from './spending.ts';

export interface LedgerState {
  readonly version: 2;
  /** By the name of the file that is written. */
  readonly journals: Readonly<Record<string, SavedJournal>>;
  readonly spending: SavedSpending | undefined;
  /** Who this is to others that share budgets; a version that knew of none wrote nothing. */
  readonly gateway?: SavedGateway | undefined;
  /** What those others had spent, as it was heard last; absent where budgets are not shared. */
  readonly heard?: SavedHeard | undefined;
}

/** Beside the usage file: `usage.ndjson.ledger`. */
export const stateFileOf = (usageFile: string): string => `${usageFile}.ledger`;

/** Undefined: there is none. Rejects when there is one that cannot be read. */
export async function readState(path: string): Promise<LedgerState | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const state = JSON.parse(text) as Partial<LedgerState> | null;
  const isWhole =
    state?.version === 2 &&
    isObject(state.journals) &&
    Object.values(state.journals).every(isJournal) &&
    (state.spending === undefined || isSpending(state.spending)) &&
    (state.gateway === undefined || isGateway(state.gateway)) &&
    (state.heard === undefined || (isObject(state.heard) && isSpending(state.heard)));
  if (!isWhole) throw new Error('it is no state of a ledger, or of another version');
  return state as LedgerState;
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;

function isSpending({ days, months }: Partial<SavedSpending>): boolean {
  return [days, months].every((all) => isObject(all) && Object.values(all).every(isObject));
}

function isGateway({ id, before }: Partial<SavedGateway>): boolean {
  return typeof id === 'string' && id !== '' && isObject(before) && isSpending(before);
}

function isJournal(saved: Partial<SavedJournal>): boolean {
  const { segments, cursors } = saved;
  if (!Array.isArray(segments) || !isObject(cursors)) return false;
  return Object.values(cursors).every(({ head, offset, lines }: Partial<Cursor>) => {
    return typeof head === 'string' && Number.isInteger(offset) && Number.isInteger(lines);
  });
}

/** Of this start of the thread alone: what one that died had begun may go on beside its successor. */
const unfinishedOf = (path: string): string => `${path}.${process.pid}-${threadId}`;

/** What threads of this process that died before this one have left; of other processes it is not known. */
export async function removeUnfinished(path: string): Promise<void> {
  const folder = dirname(path);
  const ours = `${basename(path)}.${process.pid}-`;
  for (const name of await readdir(folder)) {
    if (name.startsWith(ours)) await rm(join(folder, name), { force: true });
  }
}

/** `text` is a LedgerState as JSON. The file is the old one or the new one, whatever happens in between. */
export async function writeState(path: string, text: string): Promise<void> {
  const next = unfinishedOf(path);
  const handle = await open(next, 'w', 0o640);
  try {
    await handle.writeFile(text);
    await handle.datasync();
  } finally {
    await handle.close();
  }
  await rename(next, path);
}
