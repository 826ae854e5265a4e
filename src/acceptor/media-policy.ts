/**
 * Whether a request names media that its model may not fetch (`allowed_media_domains`). Acceptor threads;
 * never blocks. The first refusal of each model is said in the log: who sent such URLs before there
 * was a list would not know where the 400 comes from.
 */
import { hasForeignMedia, isAllowedMedia } from '../protocol/media-urls.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Request } from './request.ts';

export class MediaPolicy {
  readonly #state: AcceptorState;
  readonly #said = new Set<number>();
  /** Of the form that was scanned last. */
  readonly formUrls: string[] = [];

  constructor(state: AcceptorState) {
    this.#state = state;
  }

  /** `body` has been scanned and found good: JSON, or a form. */
  refuses({ facts, model }: Request, body: Uint8Array, isForm: boolean): boolean {
    const domains = facts.models.mediaDomains[model];
    if (domains === undefined) return false;
    const isForeign = isForm
      ? this.formUrls.some((url) => !isAllowedMedia(url, domains))
      : hasForeignMedia(body, body.length, domains);
    if (isForeign && !this.#said.has(model)) {
      this.#said.add(model);
      const name = this.#state.start.models[model]?.name;
      this.#state.log.warn(
        'media refused: the host is not in allowed_media_domains of the model; said once',
        { model: name },
      );
    }
    return isForeign;
  }
}
