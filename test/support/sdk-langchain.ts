/** LangChain over its own copy of the official client. */
import type { AIMessageChunk, UsageMetadata } from '@langchain/core/messages';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { type Ask, classNames, endOf, parameters, type Sdk, type Told, toolName } from './sdk.ts';

export function sdkLangchain(): Sdk {
  return {
    name: '@langchain/openai',
    path: '/v1/chat/completions',
    // It brings its own copy of `openai`, whose classes are others.
    isRefusal: (error, status) =>
      (error as { status?: unknown }).status === status &&
      (error as Error).constructor.name === classNames[status],
    isStreamError: (error) => (error as Error).constructor.name === 'APIError',
    readsMilliseconds: false,
    triesWhenSpent: 1,
    client({ url, key, maxRetries, fetch }) {
      const configuration = {
        baseURL: `${url}/v1`,
        ...(fetch !== undefined && { fetch }),
      };
      const chat = ({ model, maxTokens, extra }: Ask): ChatOpenAI =>
        new ChatOpenAI({
          ...{ model, apiKey: key, maxRetries, configuration, streamUsage: true },
          ...(maxTokens !== undefined && { maxTokens }),
          ...(extra !== undefined && { modelKwargs: { ...extra } }),
        });
      return {
        whole: async (ask) =>
          langchainTold(await bound(chat(ask), ask).invoke(ask.content, langchainOptions(ask))),
        async streamed(ask) {
          const stream = await bound(chat(ask), ask).stream(ask.content, langchainOptions(ask));
          let all: AIMessageChunk | undefined;
          for await (const chunk of stream) {
            if (chunk.text !== '') ask.onText?.(chunk.text);
            all = all === undefined ? chunk : all.concat(chunk);
          }
          if (all === undefined) throw new Error('an empty stream');
          return langchainTold(all);
        },
        embed: (model, texts) =>
          new OpenAIEmbeddings({ model, apiKey: key, maxRetries, configuration }).embedDocuments([
            ...texts,
          ]),
      };
    },
  };
}

function bound(chat: ChatOpenAI, { withTool }: Ask) {
  if (withTool !== true) return chat;
  const name = toolName;
  return chat.bindTools([{ type: 'function', function: { name, parameters } }], {
    tool_choice: { type: 'function', function: { name } },
  });
}

const langchainOptions = ({ signal }: Ask) => (signal === undefined ? {} : { signal });

function langchainTold(message: AIMessageChunk): Told {
  const call = message.tool_calls?.[0];
  const usage = message.usage_metadata as UsageMetadata | undefined;
  return {
    text: message.text,
    call: call === undefined ? undefined : { name: call.name, input: call.args },
    inputTokens: usage?.input_tokens,
    outputTokens: usage?.output_tokens,
    end: endOf(message.response_metadata.finish_reason as string | undefined),
  };
}
