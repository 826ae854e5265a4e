/** The AI SDK, whose OpenAI-compatible provider has a reader of its own. */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import {
  APICallError,
  embedMany,
  generateText,
  jsonSchema,
  RetryError,
  streamText,
  type ToolSet,
  tool,
} from 'ai';
import { type Ask, endOf, parameters, type Sdk, type Told, toolName } from './sdk.ts';

export function sdkVercel(): Sdk {
  /** With retries it wraps what it met last. */
  const cause = (error: unknown): unknown =>
    RetryError.isInstance(error) ? error.lastError : error;
  return {
    name: 'ai with @ai-sdk/openai-compatible',
    path: '/v1/chat/completions',
    isRefusal(error, status) {
      const inner = cause(error);
      return APICallError.isInstance(inner) && inner.statusCode === status;
    },
    // It hands the error event on as it came, which is no class of its own.
    isStreamError: (error) => typeof error === 'string' || error instanceof Error,
    readsMilliseconds: true,
    // It does not read `x-should-retry`.
    triesWhenSpent: 2,
    client({ url, key, maxRetries, fetch }) {
      const provider = createOpenAICompatible({
        ...{ name: 'sluice', baseURL: `${url}/v1`, apiKey: key, includeUsage: true },
        ...(fetch !== undefined && { fetch }),
      });
      return {
        async whole(ask) {
          const { text, toolCalls, usage, finishReason } = await generateText({
            ...aiSettings(ask),
            model: provider.chatModel(ask.model),
            maxRetries,
          });
          return aiTold({ text, toolCalls, usage, finishReason });
        },
        async streamed(ask) {
          let failure: unknown;
          const result = streamText({
            ...aiSettings(ask),
            model: provider.chatModel(ask.model),
            maxRetries,
            onError: () => {}, // it would be printed; it is thrown below
          });
          for await (const part of result.fullStream) {
            if (part.type === 'text-delta') ask.onText?.(part.text);
            else if (part.type === 'error') failure ??= part.error;
            else if (part.type === 'abort') failure ??= new Error('aborted');
          }
          if (failure !== undefined) throw failure;
          return aiTold({
            text: await result.text,
            toolCalls: await result.toolCalls,
            usage: await result.usage,
            finishReason: await result.finishReason,
          });
        },
        async embed(model, texts) {
          const { embeddings } = await embedMany({
            model: provider.embeddingModel(model),
            values: [...texts],
            maxRetries,
          });
          return embeddings;
        },
      };
    },
  };
}

const tools: ToolSet = {
  [toolName]: tool({ inputSchema: jsonSchema<{ echo: string }>(parameters) }),
};

function aiSettings({ content, maxTokens, withTool, extra, signal }: Ask) {
  return {
    prompt: content,
    ...(maxTokens !== undefined && { maxOutputTokens: maxTokens }),
    ...(signal !== undefined && { abortSignal: signal }),
    ...(withTool === true && {
      tools,
      toolChoice: { type: 'tool' as const, toolName },
    }),
    ...(extra !== undefined && { providerOptions: { sluice: extra as Record<string, never> } }),
  };
}

function aiTold(result: {
  text: string;
  toolCalls: readonly { toolName: string; input: unknown }[];
  usage: { inputTokens: number | undefined; outputTokens: number | undefined };
  finishReason: string;
}): Told {
  const call = result.toolCalls[0];
  return {
    text: result.text,
    call: call === undefined ? undefined : { name: call.toolName, input: call.input },
    inputTokens: result.usage.inputTokens,
    outputTokens: result.usage.outputTokens,
    end: endOf(result.finishReason),
  };
}
