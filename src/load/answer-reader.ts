/**
 * Reads what an answer says: token events, usage and the end of a stream; or one JSON body.
 * Fed with body ranges split anywhere; holds at most one partial line (or a small body) of bytes.
 *
 * It shares no code with the gateway's own SSE scanner, on purpose: a load generator that judges
 * streams by the judged code would agree with its bugs. Pure; one instance per connection.
 */

const partialBytesMax = 1024 * 1024;

/** A delta with text of any kind, or a tool call; `""` and a role alone are no token. */
const tokenPattern =
  /"(?:content|text|reasoning_content|reasoning)":\s*"(?!")|"tool_calls":\s*\[\s*\{|"type":\s*"content_block_delta"|"type":\s*"response\.output_text\.delta"/;
const donePattern = /^\{"type":\s*"(?:message_stop|response\.completed|response\.incomplete)"/;
const errorPattern = /^\{\s*"(?:error"|object":\s*"error"|type":\s*"error")/;
const completionPattern = /"(?:completion_tokens|output_tokens)":\s*(\d{1,9})/;
const promptPattern = /"(?:prompt_tokens|input_tokens)":\s*(\d{1,9})/;

const LF = 10;
const CR = 13;

export class AnswerReader {
  /** Events with content; several of them may arrive in one read. */
  tokenEvents = 0;
  /** Every `data:` line. */
  events = 0;
  bodyBytes = 0;
  sawDone = false;
  /** An error event in a stream, or a 200 body that is an error. */
  sawError = false;
  /** A line or a body beyond the bound, or bytes that are no JSON object. */
  malformed = false;
  /** From `usage`; -1 when the answer carries none. */
  completionTokens = -1;
  promptTokens = -1;

  #stream = false;
  #partial: Buffer = Buffer.allocUnsafe(512);
  #partialLength = 0;

  begin(stream: boolean): void {
    this.tokenEvents = 0;
    this.events = 0;
    this.bodyBytes = 0;
    this.sawDone = false;
    this.sawError = false;
    this.malformed = false;
    this.completionTokens = -1;
    this.promptTokens = -1;
    this.#stream = stream;
    this.#partialLength = 0;
  }

  read(bytes: Buffer, start: number, end: number): void {
    this.bodyBytes += end - start;
    if (!this.#stream) {
      this.#keep(bytes, start, end);
      return;
    }
    let lineStart = start;
    for (let at = start; at < end; at++) {
      if (bytes[at] !== LF) continue;
      if (this.#partialLength === 0) this.#readLine(bytes, lineStart, at);
      else {
        this.#keep(bytes, lineStart, at);
        this.#readLine(this.#partial, 0, this.#partialLength);
        this.#partialLength = 0;
      }
      lineStart = at + 1;
    }
    if (lineStart < end) this.#keep(bytes, lineStart, end);
  }

  /** The framing says the answer is over: judges a body that is no stream. */
  finish(): void {
    if (this.#stream) return;
    const text = this.#partial.toString('latin1', 0, this.#partialLength).trim();
    if (!text.startsWith('{') || !text.endsWith('}')) this.malformed = true;
    if (errorPattern.test(text)) this.sawError = true;
    this.#readUsage(text);
    this.tokenEvents = Math.max(this.completionTokens, 0);
  }

  #readLine(bytes: Buffer, start: number, lineEnd: number): void {
    const end = lineEnd > start && bytes[lineEnd - 1] === CR ? lineEnd - 1 : lineEnd;
    // "data:"; comments, event names, ids and the empty line carry nothing to count.
    if (end - start < 5 || bytes[start] !== 100 || bytes[start + 4] !== 58) return;
    const at = bytes[start + 5] === 32 ? start + 6 : start + 5;
    this.events++;
    const text = bytes.toString('latin1', at, end);
    if (text === '[DONE]' || donePattern.test(text)) this.sawDone = true;
    else if (errorPattern.test(text)) this.sawError = true;
    else if (!text.startsWith('{') || !text.endsWith('}')) this.malformed = true;
    else if (tokenPattern.test(text)) this.tokenEvents++;
    if (text.includes('"usage":')) this.#readUsage(text);
  }

  #readUsage(text: string): void {
    const usage = text.slice(Math.max(0, text.lastIndexOf('"usage"')));
    const completion = completionPattern.exec(usage);
    const prompt = promptPattern.exec(usage);
    if (completion !== null) this.completionTokens = Number(completion[1]);
    if (prompt !== null) this.promptTokens = Number(prompt[1]);
  }

  #keep(bytes: Buffer, start: number, end: number): void {
    const needed = this.#partialLength + end - start;
    if (needed > partialBytesMax) {
      this.malformed = true;
      return;
    }
    if (needed > this.#partial.length) {
      const larger = Buffer.allocUnsafe(Math.min(partialBytesMax, needed * 2));
      this.#partial.copy(larger, 0, 0, this.#partialLength);
      this.#partial = larger;
    }
    bytes.copy(this.#partial, this.#partialLength, start, end);
    this.#partialLength = needed;
  }
}
