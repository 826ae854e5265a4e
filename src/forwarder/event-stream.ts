/**
 * One answer that is a stream of events. Forwarder threads.
 *
 * Only complete events pass, byte for byte, where they came: nobody else reads the chunk. The bytes of
 * the event in progress wait in the scanner (bounded), so a cut never reaches the client in the middle
 * of one. A malformed event is left out and counted. Until the first content the events are held
 * (hold.ts): whatever fails before it can be asked of another replica, and what is not wanted of a
 * larger model (small-replies.ts). Complete is what the observer says, never the end of the connection.
 * With a delivery (delivery.ts) events pass as it gives them, and a break may be continued.
 */
import { Buffer } from 'node:buffer';
import { areCuts, closeUp, type Edit, noEdits } from '../protocol/byte-edits.ts';
import { CompletionObserver, Observed, type Usage } from '../protocol/completion-observer.ts';
import { isFollowed } from '../protocol/routes.ts';
import { bomBytes, type SseEvent, SseScanner, startsWithBom } from '../protocol/sse-scanner.ts';
import type { Answer, AnswerFacts, AnswerSink } from './answer.ts';
import { Break, type Delivery } from './delivery.ts';
import { copyOf } from './event-bytes.ts';
import { type Failure, failures } from './failure.ts';
import { Hold } from './hold.ts';
import type { SmallReply } from './small-replies.ts';

const lf = 0x0a;
const cr = 0x0d;
const oneLine = Buffer.from('\n');
const messageStop = Buffer.from('event: message_stop\ndata: {"type":"message_stop"}\n\n');
/** What shows that the answer itself has begun. */
const commits = Observed.token | Observed.finish | Observed.done;

export interface StreamSink extends AnswerSink {
  /** The stream broke, and what the client has of it can be continued. */
  handOver(failure: Failure): void;
}

export class EventStream implements Answer {
  readonly #sink: StreamSink;
  readonly #facts: AnswerFacts;
  readonly #isFollowed: boolean;
  readonly #scanner: SseScanner;
  readonly #observer: CompletionObserver;
  readonly #hold = new Hold();
  readonly #delivery: Delivery | undefined;
  readonly #judge: SmallReply | undefined;
  #over = false;
  /** The chunk at hand and the run of its bytes that pass, [runStart, runEnd). */
  #chunk: Uint8Array = oneLine;
  #runStart = 0;
  #runEnd = 0;
  #tokens = 0;
  #data = false;
  /** The last event ended at the CR of a CRLF whose LF has not come. */
  #owesLf = false;

  constructor(sink: StreamSink, facts: AnswerFacts, delivery?: Delivery, judge?: SmallReply) {
    this.#sink = sink;
    this.#facts = facts;
    this.#isFollowed = isFollowed(facts.shape);
    this.#delivery = delivery;
    this.#judge = judge;
    this.#scanner = new SseScanner((event) => this.#onEvent(event), delivery?.eventBytesMax);
    this.#observer = new CompletionObserver(delivery?.parts);
    this.#observer.reset(facts.shape, facts.choices);
  }

  /** Where the replica has not said, or only of the beginning, events with tokens are counted. */
  get usage(): Usage {
    if (this.#delivery !== undefined) return this.#delivery.usage;
    const { usage, tokenEvents, complete } = this.#observer;
    const isSaid = usage.completion >= (complete ? 0 : tokenEvents);
    return isSaid || !this.#isFollowed ? usage : { ...usage, completion: tokenEvents };
  }

  get id(): string {
    return this.#observer.id;
  }

  push(chunk: Uint8Array): void {
    if (this.#over) return;
    this.#chunk = chunk;
    this.#runStart = this.#runEnd = 0;
    const failed = this.#scanner.push(chunk);
    if (this.#over) return;
    this.#passRun();
    this.#tell();
    if (this.#observer.sawDone) this.#finish();
    else if (failed !== 0) this.#fail(failures.eventTooLarge);
  }

  end(broken: Failure | undefined): void {
    if (this.#over) return;
    this.#scanner.finish();
    if (this.#over) return;
    this.#tell();
    // Transcriptions and the like have no last event of their own.
    const framedEnd = broken === undefined && !this.#isFollowed && this.#facts.framed;
    if (this.#observer.complete || framedEnd) this.#finish();
    else this.#fail(broken ?? failures.truncated);
  }

  #onEvent(event: SseEvent): void {
    if (this.#over || this.#observer.sawDone) return; // what follows the last event is not the answer
    const flags = this.#observer.onEvent(event);
    if ((flags & Observed.error) !== 0 && (flags & Observed.done) === 0) {
      this.#passRun();
      this.#fail(failures.errorEvent);
      return;
    }
    if ((flags & Observed.error) !== 0 && !this.#sink.committed) {
      this.#fail(failures.errorEvent);
      return;
    }
    if ((flags & Observed.malformed) !== 0 && this.#isFollowed) {
      this.#sink.dropped();
      if (event.terminated) this.#delivery?.block();
      return;
    }
    if (this.#judge !== undefined && !this.#sink.committed) {
      const unwanted = this.#judge.ofEvent(event);
      if (unwanted !== undefined) {
        this.#over = true;
        this.#sink.discard(unwanted);
        return;
      }
    }
    if ((flags & Observed.token) !== 0) this.#tokens++;
    else if (event.dataLines > 0) this.#data = true;
    const begins = (flags & commits) !== 0 || !this.#isFollowed;
    if (this.#delivery !== undefined) {
      this.#follow(this.#delivery, event, flags, begins);
      return;
    }
    this.#pass(event);
    if (!this.#sink.committed && (begins || this.#hold.full(this.#runEnd - this.#runStart)))
      this.#release();
  }

  #follow(delivery: Delivery, event: SseEvent, flags: number, begins: boolean): void {
    // The client has had the beginning of a stream.
    if (delivery.isContinued && startsWithBom(event.bytes, event.start, event.end)) {
      event.start += bomBytes;
    }
    const edits = delivery.take(event, flags, this.#observer.usage);
    this.#scanner.eventBytesMax = delivery.eventBytesMax;
    const isHeld = delivery.isWaiting || (!begins && !this.#sink.committed);
    if (edits !== undefined) {
      if (isHeld || !this.#sink.committed || !this.#hold.isEmpty) {
        this.#passRun();
        this.#owesLf = owesLf(event);
        this.#hold.push(copyOf(event, edits));
      } else this.#pass(event, edits);
    }
    if (isHeld && !this.#hold.full(0)) return;
    if (!this.#sink.committed || !this.#hold.isEmpty) this.#release();
    if (!this.#over) delivery.confirm();
  }

  /** Events of the chunk at hand become one run: what is cut or left out between them is closed up. */
  #pass(event: SseEvent, edits: readonly Edit[] = noEdits): void {
    this.#owesLf = owesLf(event);
    // Edits are of the data, which is elsewhere if it was joined of several lines.
    const isHere = edits.length === 0 || (event.data === event.bytes && areCuts(edits));
    if (event.bytes !== this.#chunk || !isHere) {
      this.#passRun();
      // An event that spans chunks lies in a buffer the scanner uses again.
      this.#give(copyOf(event, edits));
      return;
    }
    if (this.#runEnd === this.#runStart) this.#runStart = this.#runEnd = event.start;
    this.#runEnd = closeUp(this.#chunk, this.#runEnd, event.start, event.end, edits);
  }

  #passRun(): void {
    if (this.#runEnd === this.#runStart) return;
    const whole = this.#runStart === 0 && this.#runEnd === this.#chunk.length;
    this.#give(whole ? this.#chunk : this.#chunk.subarray(this.#runStart, this.#runEnd));
    this.#runStart = this.#runEnd;
  }

  #give(bytes: Uint8Array): void {
    if (this.#sink.committed) this.#sink.emit(bytes);
    else this.#hold.push(bytes);
  }

  #release(): void {
    if (this.#sink.committed || this.#sink.commit()) this.#hold.release(this.#sink);
    else this.#over = true;
  }

  /** Once a chunk, not once an event: clocks and metrics need no more. */
  #tell(): void {
    if (this.#tokens > 0) this.#sink.token(this.#tokens);
    else if (this.#data) this.#sink.progress();
    this.#tokens = 0;
    this.#data = false;
  }

  #finish(): void {
    if (this.#delivery !== undefined && !this.#observer.sawDone) {
      this.#hold.push(this.#delivery.ending());
    }
    if (!this.#sink.committed || this.#delivery !== undefined) this.#release();
    if (this.#over) return;
    // Nothing is read behind the last event, and some clients look for CRLF CRLF.
    if (this.#owesLf) this.#sink.emit(oneLine);
    // Nothing is missing but this, and without it the clients of Anthropic have no message.
    if (this.#facts.shape === 'anthropic' && !this.#observer.sawDone) this.#sink.emit(messageStop);
    this.#over = true;
    this.#sink.complete();
  }

  #fail(failure: Failure): void {
    this.#tell();
    const end = this.#sink.committed ? this.#delivery?.onBreak(failure) : undefined;
    if (end === Break.isComplete) {
      this.#finish();
      return;
    }
    this.#over = true;
    if (end === Break.continues) {
      this.#sink.handOver(failure);
      return;
    }
    if (end === Break.ends) {
      this.#delivery?.close();
      this.#hold.release(this.#sink); // what came and waits is the client's
    }
    this.#sink.fail(failure);
  }
}

/** It ends at the CR of a CRLF whose LF has not come. */
function owesLf({ bytes, end, terminated }: SseEvent): boolean {
  return terminated && bytes[end - 1] === cr && bytes[end - 2] === lf;
}
