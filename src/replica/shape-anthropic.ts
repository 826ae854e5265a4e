/** The Messages API of Anthropic, as vLLM and SGLang serve it. Pure; see shape.ts for the parts. */
import type { Generation } from './generation.ts';
import { wireJson } from './http-writer.ts';
import { type Shape, tokensOf } from './shape.ts';

export function createAnthropicShape(generation: Generation, id: string): Shape {
  const head = `{"id":"msg_${id}","type":"message","role":"assistant","model":${wireJson(generation.model)},`;
  const stop = generation.choices[0]?.finish === 'length' ? 'max_tokens' : 'end_turn';
  const usage = (output: number): string =>
    `{"input_tokens":${generation.promptTokens},"output_tokens":${output}}`;
  return {
    open: () =>
      event(
        'message_start',
        `"message":${head}"content":[],"stop_reason":null,"stop_sequence":null,"usage":${usage(0)}}`,
      ) +
      event('content_block_start', '"index":0,"content_block":{"type":"text","text":""}') +
      event('ping', ''),
    delta: (choice, _step, text) =>
      choice > 0
        ? ''
        : event('content_block_delta', `"index":0,"delta":{"type":"text_delta","text":"${text}"}`),
    close: () =>
      event('content_block_stop', '"index":0') +
      event(
        'message_delta',
        `"delta":{"stop_reason":"${stop}","stop_sequence":null},"usage":${usage(tokensOf(generation))}`,
      ) +
      event('message_stop', ''),
    whole: (texts) =>
      `${head}"content":[{"type":"text","text":"${texts[0] ?? ''}"}],"stop_reason":"${stop}","stop_sequence":null,"usage":${usage(tokensOf(generation))}}`,
  };
}

function event(type: string, fields: string): string {
  return `event: ${type}\ndata: {"type":"${type}"${fields === '' ? '' : `,${fields}`}}\n\n`;
}
