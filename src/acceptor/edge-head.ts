/**
 * The request line and headers of the request being read; one record per acceptor, reused.
 *
 * Valid only inside the engine's request callback. The rules are protocol/http-rules.ts, applied in
 * one pass before anything else looks at the request.
 */
import { errors } from '../errors/catalogue.ts';
import { RequestHead } from '../protocol/http-rules.ts';

/** Visible ASCII: what may stand in a request target that is forwarded. */
const targetPattern = /^\/[\x21-\x7e]*$/;
const targetLengthMax = 8192;

export class EdgeHead {
  readonly rules = new RequestHead();
  method = '';
  /** Path and query as sent. */
  target = '';
  /** True when the request comes from a web page. */
  hasOrigin = false;

  reset(method: string, target: string): void {
    this.rules.reset();
    this.method = method;
    this.target = target;
    this.hasOrigin = false;
  }

  /** Takes one header; `name` is lower-case. */
  readonly add = (name: string, value: string): void => {
    if (name === 'origin') this.hasOrigin = true;
    this.rules.add(name, value);
  };

  /** 0, or the number of the error that refuses the request. */
  check(): number {
    const error = this.rules.finish(this.method);
    if (error !== 0) return error;
    if (this.target.length > targetLengthMax || !targetPattern.test(this.target)) {
      this.rules.errorParam = 'request target';
      return errors.BAD_FRAMING.number;
    }
    return 0;
  }

  /** Whether bytes behind this request could be taken for another one by a party that reads it otherwise. */
  get mustClose(): boolean {
    return this.method !== 'POST' || this.rules.isChunked;
  }
}
