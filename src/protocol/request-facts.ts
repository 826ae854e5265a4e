/**
 * What the scan of a request body finds (request-scanner.ts). Pure; one record per acceptor, overwritten by
 * each scan, so that a scan allocates nothing but strings.
 */
import { prefixDepths } from './prefix-hash.ts';

/** What a scan found. One record per acceptor, overwritten by each scan. */
export interface RequestFacts {
  /** '' when the body names no model. */
  model: string;
  /** Where its value is, with the quotes it has in JSON; 0 0 without one. */
  modelStart: number;
  modelBytes: number;
  stream: boolean;
  /** Largest of the max_tokens family, at most 2^31 - 1; 0 when absent or not positive. */
  maxTokens: number;
  n: number;
  /** Larger of best_of and n_cmpl, and its key. */
  bestOf: number;
  bestOfKey: string;
  includeUsage: boolean;
  /** session_id, else prompt_cache_key, else ''. */
  sessionKey: string;
  /** Pairs of int32, one per depth of `prefixDepths`. */
  readonly prefixHashes: Int32Array;
  prefixCount: number;
  /** Of the first 64 characters of the prompt; 0 0 without one. */
  readonly headHash: Int32Array;
  /** Where the value of messages, else prompt, else input begins, and its raw bytes. */
  promptStart: number;
  promptBytes: number;
  /** That value is of `prompt` and one text. */
  hasTextPrompt: boolean;
  /** Prompts of the `prompt` key: each is answered with `n` choices. At least 1. */
  prompts: number;
  /** Where the value of `input` is; 0 0 without one. */
  inputStart: number;
  inputEnd: number;
  /** Bytes of all that is for the model to read, media left out; of the whole body where nothing is known to be. */
  textBytes: number;
  /** Bytes of the body in media (media-bytes.ts). */
  mediaBytes: number;
  /** Media, or a URL of some, an earlier response, a stored prompt, embeddings: tokens that are in no byte of text. */
  readsMore: boolean;
  /** The key that `maxTokens` is from; '' without one. */
  maxTokensKey: string;
  /** Largest of the logprobs family, which all of the vocabulary (-1) is above; and its key. */
  logprobs: number;
  logprobsKey: string;
  /** Stop texts, and their key. */
  stops: number;
  stopKey: string;
  /** Bits of the restricted keys that are there and not null (request-caps.ts). */
  restricted: number;
  /** The engine is asked to cut the prompt to size. */
  truncatesPrompt: boolean;
  /** The engine is to forget the response. */
  isUnstored: boolean;
  /** Id of the response that it goes on with; '' for none. */
  previousResponse: string;
  /** The response is wanted later: the answer says only that it will be made. */
  isBackground: boolean;
  /** The client gives the request an id, by which an engine may store its response. */
  hasRequestId: boolean;
  /** The key an error is about, and what is to be said of it; '' otherwise. */
  errorParam: string;
  errorMessage: string;
  /** Where the scan stopped when it failed. */
  errorPosition: number;
}

export function createRequestFacts(): RequestFacts {
  return {
    model: '',
    modelStart: 0,
    modelBytes: 0,
    stream: false,
    maxTokens: 0,
    n: 1,
    bestOf: 0,
    bestOfKey: '',
    includeUsage: false,
    sessionKey: '',
    prefixHashes: new Int32Array(2 * prefixDepths.length),
    prefixCount: 0,
    headHash: new Int32Array(2),
    promptStart: 0,
    promptBytes: 0,
    hasTextPrompt: false,
    prompts: 1,
    inputStart: 0,
    inputEnd: 0,
    textBytes: 0,
    mediaBytes: 0,
    readsMore: false,
    maxTokensKey: '',
    logprobs: 0,
    logprobsKey: '',
    stops: 0,
    stopKey: '',
    restricted: 0,
    truncatesPrompt: false,
    isUnstored: false,
    previousResponse: '',
    isBackground: false,
    hasRequestId: false,
    errorParam: '',
    errorMessage: '',
    errorPosition: 0,
  };
}

export function resetRequestFacts(facts: RequestFacts): void {
  facts.model = '';
  facts.modelStart = 0;
  facts.modelBytes = 0;
  facts.stream = false;
  facts.maxTokens = 0;
  facts.n = 1;
  facts.bestOf = 0;
  facts.bestOfKey = '';
  facts.includeUsage = false;
  facts.sessionKey = '';
  facts.prefixCount = 0;
  facts.headHash.fill(0);
  facts.promptStart = 0;
  facts.promptBytes = 0;
  facts.hasTextPrompt = false;
  facts.prompts = 1;
  facts.inputStart = 0;
  facts.inputEnd = 0;
  facts.textBytes = 0;
  facts.mediaBytes = 0;
  facts.readsMore = false;
  facts.maxTokensKey = '';
  facts.logprobs = 0;
  facts.logprobsKey = '';
  facts.stops = 0;
  facts.stopKey = '';
  facts.restricted = 0;
  facts.truncatesPrompt = false;
  facts.isUnstored = false;
  facts.previousResponse = '';
  facts.isBackground = false;
  facts.hasRequestId = false;
  facts.errorParam = '';
  facts.errorMessage = '';
  facts.errorPosition = 0;
}
