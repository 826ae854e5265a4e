/** The official client of the Messages API. */
import Anthropic from '@anthropic-ai/sdk';
import { type Ask, classNames, endOf, parameters, type Sdk, type Told, toolName } from './sdk.ts';

/** `header`: where the key goes. This version makes a bearer token of it, earlier ones and curl do not. */
export function sdkAnthropic(header: 'x-api-key' | 'authorization'): Sdk {
  return {
    name: `@anthropic-ai/sdk with ${header}`,
    path: '/v1/messages',
    isRefusal: (error, status) => error instanceof Anthropic[classNames[status]],
    isStreamError: (error) => error instanceof Anthropic.APIError && error.type !== null,
    readsMilliseconds: true,
    triesWhenSpent: 1,
    client({ url, key, maxRetries, fetch }) {
      const credential =
        header === 'x-api-key'
          ? { apiKey: null, authToken: null, defaultHeaders: { 'x-api-key': key } }
          : { apiKey: key, authToken: null };
      const client = new Anthropic({
        ...{ baseURL: url, maxRetries, ...credential },
        ...(fetch !== undefined && { fetch }),
      });
      return {
        async whole(ask) {
          const options = ask.signal === undefined ? {} : { signal: ask.signal };
          return anthropicTold(await client.messages.create(anthropicBody(ask), options));
        },
        async streamed(ask) {
          const options = ask.signal === undefined ? {} : { signal: ask.signal };
          const stream = client.messages.stream(anthropicBody(ask), options);
          const { onText } = ask;
          if (onText !== undefined) stream.on('text', (text) => onText(text));
          return anthropicTold(await stream.finalMessage());
        },
        async models() {
          const ids: string[] = [];
          for await (const { id } of client.models.list()) ids.push(id);
          return ids;
        },
        model: async (id) => (await client.models.retrieve(id)).id,
      };
    },
  };
}

function anthropicBody({ model, content, maxTokens, withTool, extra }: Ask) {
  const name = toolName;
  return {
    model,
    messages: [{ role: 'user' as const, content }],
    max_tokens: maxTokens ?? 1000,
    ...(withTool === true && {
      tools: [{ name, input_schema: parameters }],
      tool_choice: { type: 'tool' as const, name },
    }),
    ...extra,
  };
}

function anthropicTold({ content, usage, stop_reason }: Anthropic.Message): Told {
  const [block] = content;
  return {
    text: block?.type === 'text' ? block.text : '',
    call: block?.type === 'tool_use' ? { name: block.name, input: block.input } : undefined,
    // What came out of a cache is counted beside the rest.
    inputTokens: usage.input_tokens + (usage.cache_read_input_tokens ?? 0),
    outputTokens: usage.output_tokens,
    end: endOf(stop_reason),
  };
}
