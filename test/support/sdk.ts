/**
 * A client library as the cases of sdk-cases.ts see it: what they ask of it, and what it made of the
 * answer. One file each implements it; nothing here knows what a test wants to prove.
 */
export interface Ask {
  readonly model: string;
  readonly content: string;
  readonly maxTokens?: number;
  /** A function `speak({echo: string})` that the answer has to call. */
  readonly withTool?: boolean;
  /** Body fields that the library does not know. */
  readonly extra?: Readonly<Record<string, unknown>>;
  readonly signal?: AbortSignal;
  /** Called with each piece of the text of a stream. */
  readonly onText?: (text: string) => void;
}

export interface Told {
  readonly text: string;
  readonly call: { readonly name: string; readonly input: unknown } | undefined;
  readonly inputTokens: number | undefined;
  readonly outputTokens: number | undefined;
  readonly end: 'stop' | 'length' | 'tool' | undefined;
}

export interface SdkClient {
  whole(ask: Ask): Promise<Told>;
  streamed(ask: Ask): Promise<Told>;
  /** Ids of the models; undefined: the library has no such call. */
  models?(): Promise<string[]>;
  model?(id: string): Promise<string>;
  embed?(model: string, texts: readonly string[]): Promise<readonly (readonly number[])[]>;
}

export interface SdkOptions {
  readonly url: string;
  readonly key: string;
  readonly maxRetries: number;
  readonly fetch?: typeof fetch;
}

export interface Sdk {
  readonly name: string;
  readonly path: '/v1/chat/completions' | '/v1/messages';
  /** The error is of the class that the library has for a status, and carries it. */
  isRefusal(error: unknown, status: 401 | 403 | 404 | 429): boolean;
  /** The error is what the library makes of an error event in a stream. */
  isStreamError(error: unknown): boolean;
  /** It reads `retry-after-ms`; else whole seconds. */
  readonly readsMilliseconds: boolean;
  /** Requests it makes with one retry allowed when it is told to come again in ten minutes. */
  readonly triesWhenSpent: 1 | 2;
  client(options: SdkOptions): SdkClient;
}

export const parameters = {
  type: 'object' as const,
  properties: { echo: { type: 'string' } },
  required: ['echo'],
};
export const toolName = 'speak';
/** What a library calls the end of an answer. */
export const endOf = (reason: string | null | undefined): Told['end'] => {
  if (reason === 'stop' || reason === 'end_turn') return 'stop';
  if (reason === 'length' || reason === 'max_tokens') return 'length';
  if (reason === 'tool_calls' || reason === 'tool-calls' || reason === 'tool_use') return 'tool';
  return undefined;
};

/** Of the errors of the two official libraries, by status. */
export const classNames = {
  401: 'AuthenticationError',
  403: 'PermissionDeniedError',
  404: 'NotFoundError',
  429: 'RateLimitError',
} as const;
