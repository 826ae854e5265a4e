/**
 * Unusual and broken event streams, by name. Pure functions from the events of an answer (each with
 * its blank line, in the byte form of wireText) to the events that are sent instead.
 *
 * `legal`: the WHATWG rules for event streams give the same tokens and the same `[DONE]`.
 * `complete`: the end of the answer can still be seen, so an honest client may call it complete.
 */
export interface SseVariant {
  readonly legal: boolean;
  readonly complete: boolean;
  apply(events: readonly string[], at: number): string[];
}

const BOM = '\xef\xbb\xbf';

export const SSE_VARIANTS: Readonly<Record<string, SseVariant>> = {
  cr: legal((events) => events.map((event) => event.replaceAll('\n', '\r'))),
  crlf: legal((events) => events.map((event) => event.replaceAll('\n', '\r\n'))),
  'mixed-line-ends': legal((events) =>
    events.map((event, i) => event.replaceAll('\n', ['\n', '\r', '\r\n'][i % 3] ?? '\n')),
  ),
  'no-space': legal((events) => events.map((event) => event.replaceAll('data: ', 'data:'))),
  bom: legal((events) => events.map((event, i) => (i === 0 ? BOM + event : event))),
  comment: legal((events, at) => inserted(events, at, ': ping\n\n')),
  'comment-inside': legal((events, at) => edited(events, at, (event) => `: note\n${event}`)),
  'multi-line': legal((events, at) =>
    edited(events, at, (event) => event.replace('data: {', 'data: {\ndata: ')),
  ),
  'event-field': legal((events, at) => edited(events, at, (event) => `event: message\n${event}`)),
  'id-field': legal((events, at) => edited(events, at, (event) => `id: 7\n${event}`)),
  'retry-field': legal((events, at) => edited(events, at, (event) => `retry: 100\n${event}`)),
  'unknown-field': legal((events, at) => edited(events, at, (event) => `foo: bar\n${event}`)),
  'field-without-colon': legal((events, at) => edited(events, at, (event) => `foo\n${event}`)),
  'extra-blank-lines': legal((events, at) => edited(events, at, (event) => `\n\n${event}\n`)),
  'empty-data': illegal(true, (events, at) => inserted(events, at, 'data:\n\n')),
  'not-json': illegal(true, (events, at) => inserted(events, at, 'data: hello\n\n')),
  'json-garbage': illegal(true, (events, at) => inserted(events, at, 'data: {"id":,,}\n\n')),
  'json-array': illegal(true, (events, at) => inserted(events, at, 'data: []\n\n')),
  'json-null': illegal(true, (events, at) => inserted(events, at, 'data: null\n\n')),
  'json-truncated': illegal(true, (events, at) =>
    edited(events, at, (event) => `${event.slice(0, -'}]}\n\n'.length)}\n\n`),
  ),
  'invalid-utf8': illegal(true, (events, at) =>
    inserted(events, at, 'data: {"note":"\xff\xfe"}\n\n'),
  ),
  'nul-byte': illegal(true, (events, at) => inserted(events, at, 'data: {"note":"\0"}\n\n')),
  'no-blank-line': illegal(true, (events, at) =>
    edited(events, at, (event) => event.replace(/\n\n$/, '\n')),
  ),
  'no-final-blank-line': illegal(false, (events) =>
    edited(events, events.length - 1, (event) => event.replace(/\n\n$/, '')),
  ),
  'no-done': illegal(true, (events) => events.filter((event) => !isDone(event))),
  'no-finish': illegal(true, (events) => events.map(withoutFinish)),
  'no-finish-no-done': illegal(false, (events) =>
    events.filter((event) => !isDone(event)).map(withoutFinish),
  ),
  'done-only': illegal(true, () => ['data: [DONE]\n\n']),
  'done-twice': illegal(true, (events) => [...events, ...events.filter(isDone)]),
  'done-early': illegal(true, (events, at) => inserted(events, at, 'data: [DONE]\n\n')),
  'event-after-done': illegal(true, (events, at) => [...events, events[at] ?? '']),
  'no-events': illegal(false, () => []),
};

function legal(apply: SseVariant['apply']): SseVariant {
  return { legal: true, complete: true, apply };
}

function illegal(complete: boolean, apply: SseVariant['apply']): SseVariant {
  return { legal: false, complete, apply };
}

function inserted(events: readonly string[], at: number, event: string): string[] {
  return events.toSpliced(Math.min(at, events.length), 0, event);
}

function edited(events: readonly string[], at: number, edit: (event: string) => string): string[] {
  return events.map((event, i) => (i === at ? edit(event) : event));
}

function isDone(event: string): boolean {
  return event.includes('[DONE]') || event.startsWith('event: message_stop');
}

function withoutFinish(event: string): string {
  return event.replace(/"finish_reason":"[a-z_]+"/, '"finish_reason":null');
}
