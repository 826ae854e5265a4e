/**
 * One answer that is a stream of events. Forwarder threads.
 *
 * Only complete events pass, byte for byte; the bytes of the event in progress wait in the scanner
 * (bounded), so a cut never reaches the client in the middle of one. A malformed event is left out
 * and counted. Until the first content the events are held (hold.ts): whatever fails before it can
 * be asked of another replica. Complete is what the observer says, never the end of the connection.
 */
import { Buffer } from 'node:buffer';
import { CompletionObserver, Observed, type Usage } from '../protocol/completion-observer.ts';
import { type SseEvent, SseScanner } from '../protocol/sse-scanner.ts';
import type { Answer, AnswerFacts, AnswerSink } from './answer.ts';
import { type Failure, failures } from './failure.ts';
import { Hold } from './hold.ts';

const lf = 0x0a;
const cr = 0x0d;
const oneLine = Buffer.from('\n');
const twoLines = Buffer.from('\n\n');
/** What shows that the answer itself has begun. */
const commits = Observed.token | Observed.finish | Observed.done;

export class EventStream implements Answer {
  readonly #sink: AnswerSink;
  readonly #facts: AnswerFacts;
  readonly #scanner: SseScanner;
  readonly #observer = new CompletionObserver();
  readonly #hold = new Hold();
  #over = false;
  /** The chunk at hand and the run of its bytes that pass, [runStart, runEnd). */
  #chunk: Uint8Array = oneLine;
  #runStart = 0;
  #runEnd = 0;
  #tokens = 0;
  #data = false;
  /** The last event ended at the CR of a CRLF whose LF has not come. */
  #owesLf = false;

  constructor(sink: AnswerSink, facts: AnswerFacts) {
    this.#sink = sink;
    this.#facts = facts;
    this.#scanner = new SseScanner((event) => this.#onEvent(event));
    this.#observer.reset(facts.shape, facts.choices);
  }

  get usage(): Usage {
    return this.#observer.usage;
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
    const framedEnd = broken === undefined && this.#facts.shape === 'whole' && this.#facts.framed;
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
    if ((flags & Observed.malformed) !== 0 && this.#facts.shape !== 'whole') {
      this.#sink.dropped();
      return;
    }
    if ((flags & Observed.token) !== 0) this.#tokens++;
    else if (event.dataLines > 0) this.#data = true;
    this.#pass(event);
    const begins = (flags & commits) !== 0 || this.#facts.shape === 'whole';
    if (!this.#sink.committed && (begins || this.#hold.full(this.#runEnd - this.#runStart)))
      this.#release();
  }

  /** Bytes of the chunk at hand grow one run as long as nothing is left out between them. */
  #pass(event: SseEvent): void {
    const { bytes, end } = event;
    this.#owesLf = event.terminated && bytes[end - 1] === cr && bytes[end - 2] === lf;
    if (event.bytes === this.#chunk) {
      if (event.start !== this.#runEnd) {
        this.#passRun();
        this.#runStart = event.start;
      }
      this.#runEnd = event.end;
      return;
    }
    // An event that spans chunks lies in a buffer the scanner uses again.
    this.#give(Buffer.from(event.bytes.subarray(event.start, event.end)));
    if (!event.terminated) this.#give(terminatorOf(event));
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
    if (this.#sink.commit()) this.#hold.release(this.#sink);
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
    if (!this.#sink.committed) this.#release();
    if (this.#over) return;
    // Nothing is read behind the last event, and some clients look for CRLF CRLF.
    if (this.#owesLf) this.#sink.emit(oneLine);
    this.#over = true;
    this.#sink.complete();
  }

  #fail(failure: Failure): void {
    this.#over = true;
    this.#tell();
    this.#sink.fail(failure);
  }
}

/** Without its blank line a client would never be given the event. */
function terminatorOf(event: SseEvent): Uint8Array {
  const last = event.bytes[event.end - 1];
  return last === lf || last === cr ? oneLine : twoLines;
}
