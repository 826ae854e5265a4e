/** The Messages API of Anthropic, as vLLM and SGLang serve it. Pure; see shape.ts for the parts. */
import type { Generation } from './generation.ts';
import { wireJson } from './http-writer.ts';
import { type Shape, tokensOf, unsureJson } from './shape.ts';

export function createAnthropicShape(generation: Generation, id: string): Shape {
  const { promptTokens, cached, tool } = generation;
  const head = `{"id":"msg_${id}","type":"message","role":"assistant","model":${wireJson(generation.model)},`;
  const stop = stopReason(generation);
  // What the prefix cache saved is counted beside the rest of the prompt, not within it.
  const usage = (output: number): string =>
    cached === undefined
      ? `{"input_tokens":${promptTokens},"output_tokens":${output}}`
      : `{"input_tokens":${promptTokens - cached.tokens},"cache_read_input_tokens":${cached.tokens},"output_tokens":${output}}`;
  const block = (input: string): string =>
    `{"type":"tool_use","id":"toolu_${id}","name":${wireJson(tool ?? '')},"input":${input}}`;
  const unsure = unsureJson(generation);
  const event = (type: string, fields: string): string =>
    eventOf(type, fields === '' ? '' : unsure + fields);
  const delta = (fields: string): string =>
    event('content_block_delta', `"index":0,"delta":{"type":${fields}}`);
  const part = (json: string): string => delta(`"input_json_delta","partial_json":"${json}"`);
  return {
    open: () =>
      event(
        'message_start',
        `"message":${head}"content":[],"stop_reason":null,"stop_sequence":null,"usage":${usage(0)}}`,
      ) +
      event(
        'content_block_start',
        `"index":0,"content_block":${tool === undefined ? '{"type":"text","text":""}' : block('{}')}`,
      ) +
      event('ping', '') +
      (tool === undefined ? '' : part('{\\"echo\\":\\"')),
    delta: (choice, _step, text, last) => {
      if (choice > 0 || stop === 'refusal') return '';
      if (tool === undefined) return delta(`"text_delta","text":"${text}"`);
      return part(last ? `${text}\\"}` : text);
    },
    close: () =>
      event('content_block_stop', '"index":0') +
      event(
        'message_delta',
        `"delta":{"stop_reason":"${stop}","stop_sequence":null},"usage":${usage(tokensOf(generation))}`,
      ) +
      event('message_stop', ''),
    whole: ([text = '']) => {
      const content =
        tool === undefined ? `{"type":"text","text":"${text}"}` : block(`{"echo":"${text}"}`);
      return `${head}${unsure}"content":[${content}],"stop_reason":"${stop}","stop_sequence":null,"usage":${usage(tokensOf(generation))}}`;
    },
  };
}

function stopReason({ choices, tool }: Generation): string {
  if (choices[0]?.finish === 'length') return 'max_tokens';
  if (choices[0]?.finish === 'content_filter') return 'refusal';
  return tool === undefined ? 'end_turn' : 'tool_use';
}

function eventOf(type: string, fields: string): string {
  return `event: ${type}\ndata: {"type":"${type}"${fields === '' ? '' : `,${fields}`}}\n\n`;
}
