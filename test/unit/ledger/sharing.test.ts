/** Budgets that gateways share: whose sums a gateway goes on with. */
import { expect, test } from 'vitest';
import { type BudgetStore, RedisBudgets } from '../../../src/ledger/budget-store.ts';
import { BudgetSharing, type SavedHeard } from '../../../src/ledger/sharing.ts';

const acme = { tenant: 'acme', row: 0, isClosed: false, day: 100, month: 1000 };
const others = 70;

/** A store by which others have spent `others`, if it is there. */
const storeAt = (place: string, isThere: boolean): BudgetStore => ({
  place,
  connect: () => (isThere ? Promise.resolve() : Promise.reject(new Error('away'))),
  exchange: async (_gateway, _tenant, calls) => calls.map(() => ({ total: others, own: 0 })),
  close: () => {},
});

/** What all have spent this month, as a gateway that begins with `heard` knows, and what it keeps of that. */
async function known(store: BudgetStore, heard?: SavedHeard) {
  const sharing = new BudgetSharing({
    ...{ store, heard, gateway: { id: 'one', before: { days: {}, months: {} } } },
    spentAt: () => () => ({ day: 0, month: 0 }),
    ...{ onState: () => {}, onCall: () => {}, onRefused: () => {}, onNews: () => {} },
  });
  await sharing.start([acme]);
  return { sum: sharing.totalAt(Date.now())('acme').month, kept: sharing.heard };
}

test('what was heard of others is known without the store that said so, and in no other', async () => {
  const { sum, kept } = await known(storeAt('here', true));
  expect(sum).toBe(others);
  const saved = JSON.parse(JSON.stringify(kept)) as SavedHeard;
  expect((await known(storeAt('here', false), saved)).sum).toBe(others);
  expect((await known(storeAt('there', false), saved)).sum).toBe(0);
  const { from: _, ...unsaid } = saved;
  expect((await known(storeAt('here', false), unsaid)).sum, 'of nobody knows which').toBe(0);
});

test('what another store said is not kept as of this one', async () => {
  const { kept } = await known(storeAt('here', true));
  const { kept: after } = await known(storeAt('there', false), kept);
  expect((await known(storeAt('there', false), after)).sum).toBe(0);
});

test('a store is known by its addresses and its prefix, whoever asks there', () => {
  const placeOf = (urls: string[], prefix = 'p:', password = ''): string => {
    const options = { mode: 'cluster', urls, master: '', username: '' } as const;
    return new RedisBudgets({ ...options, password, timeoutMs: 1 }, prefix).place;
  };
  const place = placeOf(['redis://a', 'redis://b']);
  expect(placeOf(['redis://user:secret@b:6379', 'redis://a/0'], 'p:', 'other')).toBe(place);
  const different = [['redis://a'], ['redis://a', 'redis://c'], ['redis://a:1', 'redis://b']];
  different.push(['redis://a/1', 'redis://b']);
  for (const urls of different) expect(placeOf(urls), `${urls}`).not.toBe(place);
  expect(placeOf(['redis://a', 'redis://b'], 'q:')).not.toBe(place);
});
