/** Adapters of a simulated replica, in the words of vLLM and SGLang. */
import { expect, test } from 'vitest';
import { LoraShelf } from '../../../src/replica/lora-shelf.ts';

const load = (shelf: LoraShelf, name: string, path = `/p/${name}`, at = '/v1/load_lora_adapter') =>
  shelf.answer(at, { lora_name: name, lora_path: path });

test('an adapter is loaded once, listed, and given up', () => {
  const shelf = new LoraShelf({ max: 2, loadMs: 0 });
  expect(load(shelf, 'a')).toMatchObject({ status: 200, headMs: 0 });
  expect(shelf.serves('a', 'm')).toBe(true);
  expect(shelf.serves('m:a', 'm')).toBe(false);
  expect(shelf.models('m')).toEqual([
    expect.objectContaining({ id: 'a', root: '/p/a', parent: 'm' }),
  ]);
  const again = load(shelf, 'a')!;
  expect(again.status).toBe(400);
  expect(again.body()).toContain('has already been loaded');
  expect(load(shelf, 'b')?.status).toBe(200);
  expect(load(shelf, 'c')?.status).toBe(400);
  expect(shelf.answer('/v1/unload_lora_adapter', { lora_name: 'a' })?.status).toBe(200);
  expect(shelf.answer('/v1/unload_lora_adapter', { lora_name: 'a' })?.status).toBe(404);
  expect(load(shelf, 'c')?.status).toBe(200);
  expect(load(shelf, 'd', '/missing/d')?.status).toBe(404);
});

test('SGLang says in the body whether it went well', () => {
  const shelf = new LoraShelf({ max: 1, loadMs: 0 });
  const at = '/load_lora_adapter';
  expect(JSON.parse(load(shelf, 'a', '/p', at)!.body())).toEqual({ success: true });
  expect(shelf.serves('m:a', 'm')).toBe(true);
  expect(shelf.serves('a', 'm')).toBe(false);
  const refused = load(shelf, 'b', '/p', at)!;
  expect(refused.status).toBe(400);
  expect(JSON.parse(refused.body())).toMatchObject({ success: false });
});

test('it is there when its load is over, and one without places has no such routes', () => {
  const slow = new LoraShelf({ max: 1, loadMs: 60_000 });
  expect(load(slow, 'a')).toMatchObject({ status: 200, headMs: 60_000 });
  expect(slow.serves('a', 'm')).toBe(false);
  expect(slow.models('m')).toEqual([]);
  expect(load(new LoraShelf({ max: 0, loadMs: 0 }), 'a')).toBeUndefined();
});
