/** The official client of the OpenAI API. */
import OpenAI from 'openai';
import { type Ask, classNames, endOf, parameters, type Sdk, type Told, toolName } from './sdk.ts';

export function sdkOpenai(): Sdk {
  return {
    name: 'openai',
    path: '/v1/chat/completions',
    isRefusal: (error, status) => error instanceof OpenAI[classNames[status]],
    isStreamError: (error) => error instanceof OpenAI.APIError && error.code !== undefined,
    readsMilliseconds: true,
    triesWhenSpent: 1,
    client({ url, key, maxRetries, fetch }) {
      const client = new OpenAI({
        ...{ baseURL: `${url}/v1`, apiKey: key, maxRetries },
        ...(fetch !== undefined && { fetch }),
      });
      return {
        async whole(ask) {
          const { choices, usage } = await client.chat.completions.create(openaiBody(ask), {
            signal: ask.signal ?? null,
          });
          return openaiTold(choices[0], usage);
        },
        async streamed(ask) {
          const stream = client.chat.completions.stream(
            { ...openaiBody(ask), stream: true, stream_options: { include_usage: true } },
            { signal: ask.signal ?? null },
          );
          if (ask.onText !== undefined) stream.on('content', ask.onText);
          const { choices, usage } = await stream.finalChatCompletion();
          return openaiTold(choices[0], usage);
        },
        async models() {
          const ids: string[] = [];
          for await (const { id } of client.models.list()) ids.push(id);
          return ids;
        },
        model: async (id) => (await client.models.retrieve(id)).id,
        async embed(model, texts) {
          const { data } = await client.embeddings.create({ model, input: [...texts] });
          return data.map(({ embedding }) => embedding);
        },
      };
    },
  };
}

function openaiBody({ model, content, maxTokens, withTool, extra }: Ask) {
  const name = toolName;
  return {
    model,
    messages: [{ role: 'user' as const, content }],
    ...(maxTokens !== undefined && { max_tokens: maxTokens }),
    ...(withTool === true && {
      tools: [{ type: 'function' as const, function: { name, parameters } }],
      tool_choice: { type: 'function' as const, function: { name } },
    }),
    ...extra,
  };
}

function openaiTold(
  choice: OpenAI.ChatCompletion.Choice | undefined,
  usage: OpenAI.CompletionUsage | undefined,
): Told {
  const call = choice?.message.tool_calls?.[0];
  return {
    text: choice?.message.content ?? '',
    call:
      call?.type === 'function'
        ? { name: call.function.name, input: JSON.parse(call.function.arguments) }
        : undefined,
    inputTokens: usage?.prompt_tokens,
    outputTokens: usage?.completion_tokens,
    end: endOf(choice?.finish_reason),
  };
}
