/**
 * Whether an error of a replica says that the prompt is longer than the context of its model: there is one
 * code for that, which only some engines send; the others are known by their words. Pure; any thread.
 */
import { Buffer } from 'node:buffer';

/** The errors of engines are a few hundred bytes. */
const errorBytesMax = 16 * 1024;

/** Statuses that engines use for it: 400, but Anthropic's 413 and the 422 of TGI. */
export const mayBeOverflow = (status: number): boolean =>
  status === 400 || status === 413 || status === 422;

const phrases = new RegExp(
  [
    'context_length_exceeded', // OpenAI, and who copies it
    'maximum context length', // OpenAI, vLLM, SGLang
    'maximum model length', // vLLM: "is longer than the maximum model length of"
    "longer than the model's context length", // SGLang
    'exceed_context_size_error', // llama.cpp, and in its words:
    'exceeds the available context size',
    '`inputs` (?:tokens \\+ `max_new_tokens` must be|must have less than)', // TGI
    'prompt is too long', // Anthropic
    'input is too long for requested model', // Bedrock
  ].join('|'),
  'i',
);

export function isContextOverflow(body: Uint8Array): boolean {
  if (body.length > errorBytesMax) return false;
  return phrases.test(Buffer.from(body.buffer, body.byteOffset, body.length).toString('latin1'));
}
