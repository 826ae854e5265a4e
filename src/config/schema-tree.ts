/**
 * The schema as a tree one can walk: for hints, for the reference page and for editors.
 *
 * Pure; built from the rows on first use. It describes the file (the input of the schema), so a
 * duration is text with a pattern here, and a key with a default is not required.
 */
import { z } from 'zod';
import type { ConfigPath } from './problems.ts';
import { ConfigSchema } from './schema.ts';

/** The part of JSON Schema that our rows produce. */
export interface SchemaNode {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly required?: readonly string[];
  readonly items?: SchemaNode;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly pattern?: string;
  readonly quantity?: 'duration' | 'size';
  /** Bounds of a quantity, in words. */
  readonly range?: string;
  /** Set on secrets. */
  readonly writeOnly?: boolean;
}

let tree: SchemaNode | undefined;

export function schemaTree(): SchemaNode {
  tree ??= z.toJSONSchema(ConfigSchema, { io: 'input' }) as SchemaNode;
  return tree;
}

/** The node of a path; a number is any index of a list. */
export function schemaAt(path: ConfigPath): SchemaNode | undefined {
  let node: SchemaNode | undefined = schemaTree();
  for (const step of path) {
    node = typeof step === 'number' ? node?.items : ownProperty(node?.properties, step);
  }
  return node;
}

export interface SchemaValue {
  readonly value: unknown;
  readonly node: SchemaNode;
  readonly path: ConfigPath;
}

/** Every value of a config that stands at a key of the schema, with its path and its node. */
export function* schemaValues(
  value: unknown,
  node: SchemaNode = schemaTree(),
  path: ConfigPath = [],
): Generator<SchemaValue> {
  yield { value, node, path };
  if (Array.isArray(value) && node.items !== undefined) {
    for (const [index, item] of value.entries()) {
      yield* schemaValues(item, node.items, [...path, index]);
    }
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, child] of Object.entries(node.properties ?? {})) {
      if (Object.hasOwn(value, key)) {
        yield* schemaValues((value as Record<string, unknown>)[key], child, [...path, key]);
      }
    }
  }
}

function ownProperty<T>(from: Readonly<Record<string, T>> | undefined, key: string): T | undefined {
  return from !== undefined && Object.hasOwn(from, key) ? from[key] : undefined;
}
