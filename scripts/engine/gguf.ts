/**
 * Writes a tiny llama model: a real vocabulary, random weights, two layers, 17 MB. Its text is
 * gibberish, but the engine that runs it batches, caches and streams as it would for any other.
 *
 * Format: github.com/ggml-org/ggml, docs/gguf.md. The same seed gives the same bytes.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createPrng } from '../../src/lib/prng.ts';

const magic = 'GGUF';
const version = 3;
const alignment = 32;
const seed = 42;

const ValueType = { uint32: 4, float32: 6, bool: 7, string: 8, array: 9 } as const;
/** Bytes of a value, by its type number; strings and arrays carry their own length. */
const valueBytes = new Map<number, number>([
  [0, 1],
  [1, 1],
  [2, 2],
  [3, 2],
  [ValueType.uint32, 4],
  [5, 4],
  [ValueType.float32, 4],
  [ValueType.bool, 1],
  [10, 8],
  [11, 8],
  [12, 8],
]);
const tensorFloat32 = 0;

/** The shape of the model; the vocabulary decides the rest of its size. */
const embedding = 64;
const layers = 2;
const heads = 4;
const keyValueHeads = 2;
const feedForward = 128;
const contextTokens = 8192;
const headSize = embedding / heads;

interface Entry {
  readonly key: string;
  /** Key, type and value, as they stand in a file. */
  readonly bytes: Buffer;
}

interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly fill: 'random' | 'ones';
}

/** Writes the model `target` with the vocabulary of the GGUF file `vocabulary`. */
export function writeTinyModel(vocabulary: string, target: string): void {
  const { entries, tokens } = readMetadata(readFileSync(vocabulary));
  const own = ownMetadata(tokens);
  const replaced = new Set(own.map(({ key }) => key));
  const kept = entries.filter(({ key }) => !replaced.has(key) && !key.startsWith('llama.'));
  writeFileSync(target, encode([...kept, ...own], tensorsOf(tokens)));
}

class Reader {
  at = 0;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  uint32(): number {
    this.at += 4;
    return this.#bytes.readUInt32LE(this.at - 4);
  }

  uint64(): number {
    this.at += 8;
    return Number(this.#bytes.readBigUInt64LE(this.at - 8));
  }

  string(): string {
    const length = this.uint64();
    this.at += length;
    return this.#bytes.toString('utf8', this.at - length, this.at);
  }

  /** Skips a value; returns how many elements an array has. */
  skip(type: number): number {
    if (type === ValueType.string) {
      const length = this.uint64();
      this.at += length;
      return 1;
    }
    if (type === ValueType.array) {
      const elementType = this.uint32();
      const count = this.uint64();
      for (let i = 0; i < count; i++) this.skip(elementType);
      return count;
    }
    const bytes = valueBytes.get(type);
    if (bytes === undefined) throw new Error(`GGUF: unknown value type ${type}`);
    this.at += bytes;
    return 1;
  }
}

function readMetadata(file: Buffer): { entries: Entry[]; tokens: number } {
  const reader = new Reader(file);
  reader.at = magic.length;
  if (file.toString('latin1', 0, magic.length) !== magic || reader.uint32() !== version) {
    throw new Error('the vocabulary is no GGUF file of version 3');
  }
  reader.uint64(); // tensors: a vocabulary has none
  const count = reader.uint64();
  const entries: Entry[] = [];
  let tokens = 0;
  for (let i = 0; i < count; i++) {
    const start = reader.at;
    const key = reader.string();
    const elements = reader.skip(reader.uint32());
    if (key === 'tokenizer.ggml.tokens') tokens = elements;
    entries.push({ key, bytes: file.subarray(start, reader.at) });
  }
  if (tokens === 0) throw new Error('the vocabulary has no tokens');
  return { entries, tokens };
}

function ownMetadata(tokens: number): Entry[] {
  const entry = (key: string, type: number, value: Buffer): Entry => {
    return { key, bytes: Buffer.concat([string(key), uint32(type), value]) };
  };
  const number = (key: string, value: number): Entry => {
    return entry(key, ValueType.uint32, uint32(value));
  };
  return [
    entry('general.architecture', ValueType.string, string('llama')),
    entry('general.name', ValueType.string, string('tiny-random')),
    number('general.file_type', tensorFloat32),
    number('llama.context_length', contextTokens),
    number('llama.embedding_length', embedding),
    number('llama.block_count', layers),
    number('llama.feed_forward_length', feedForward),
    number('llama.attention.head_count', heads),
    number('llama.attention.head_count_kv', keyValueHeads),
    number('llama.rope.dimension_count', headSize),
    number('llama.vocab_size', tokens),
    // Text a grammar is matched against must be the text, without a space put in front of it.
    entry('tokenizer.ggml.add_space_prefix', ValueType.bool, Buffer.of(0)),
    entry('llama.attention.layer_norm_rms_epsilon', ValueType.float32, float32(1e-5)),
  ];
}

function tensorsOf(tokens: number): Tensor[] {
  const random = (name: string, ...shape: number[]): Tensor => ({ name, shape, fill: 'random' });
  const norm = (name: string): Tensor => ({ name, shape: [embedding], fill: 'ones' });
  const tensors = [
    random('token_embd', embedding, tokens),
    norm('output_norm'),
    random('output', embedding, tokens),
  ];
  for (let layer = 0; layer < layers; layer++) {
    const block = `blk.${layer}`;
    tensors.push(
      norm(`${block}.attn_norm`),
      random(`${block}.attn_q`, embedding, embedding),
      random(`${block}.attn_k`, embedding, keyValueHeads * headSize),
      random(`${block}.attn_v`, embedding, keyValueHeads * headSize),
      random(`${block}.attn_output`, embedding, embedding),
      norm(`${block}.ffn_norm`),
      random(`${block}.ffn_gate`, embedding, feedForward),
      random(`${block}.ffn_up`, embedding, feedForward),
      random(`${block}.ffn_down`, feedForward, embedding),
    );
  }
  return tensors;
}

function encode(entries: readonly Entry[], tensors: readonly Tensor[]): Buffer {
  const prng = createPrng(seed);
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  let offset = 0;
  for (const { name, shape, fill } of tensors) {
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
    for (let i = 0; i < values.length; i++) {
      // Small enough that no layer saturates, wide enough that tokens differ.
      values[i] = fill === 'ones' ? 1 : (prng.next() / 2 ** 32 - 0.5) * 0.3;
    }
    const head = [string(`${name}.weight`), uint32(shape.length), ...shape.map(uint64)];
    infos.push(...head, uint32(tensorFloat32), uint64(offset));
    const bytes = padded(Buffer.from(values.buffer));
    data.push(bytes);
    offset += bytes.length;
  }
  const counts = [uint32(version), uint64(tensors.length), uint64(entries.length)];
  const metadata = entries.map(({ bytes }) => bytes);
  const head = Buffer.concat([Buffer.from(magic), ...counts, ...metadata, ...infos]);
  return Buffer.concat([padded(head), ...data]);
}

function padded(bytes: Buffer): Buffer {
  const rest = bytes.length % alignment;
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(alignment - rest)]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function float32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([uint64(bytes.length), bytes]);
}
