/** The spans of one trace as a tree. */
import { expect } from 'vitest';
import { newSpanId, newTraceId } from '../../src/protocol/traceparent.ts';
import { type ReceivedSpan, spanKinds } from './otlp-receiver.ts';

export const newTrace = () => ({ traceId: newTraceId(), spanId: newSpanId() });

export const only = (spans: readonly ReceivedSpan[], kind: number): ReceivedSpan => {
  const found = spans.filter((span) => span.kind === kind);
  expect(found).toHaveLength(1);
  return found[0]!;
};

export const byStart = (a: ReceivedSpan, b: ReceivedSpan): number => Number(a.startNs - b.startNs);

/** Every span but the root is a child of one that is there, within its time; returns the root. */
export function expectConnected(spans: readonly ReceivedSpan[], parentId: string): ReceivedSpan {
  const byId = new Map(spans.map((span) => [span.spanId, span]));
  expect(byId.size).toBe(spans.length);
  const root = only(spans, spanKinds.server);
  expect(root.parentId).toBe(parentId);
  for (const span of spans) {
    expect(span.endNs).toBeGreaterThanOrEqual(span.startNs);
    if (span === root) continue;
    expect(byId.get(span.parentId)).toBe(root);
    expect(span.startNs).toBeGreaterThanOrEqual(root.startNs);
  }
  return root;
}
