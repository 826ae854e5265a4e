/**
 * A thread's end of the port to the main thread: what it was started with, what it is told, what it says.
 * Any thread of the gateway but those of the tokenizer pool, once, at the top of its main.ts.
 *
 * In a gateway under test the faults for the thread come by it too (fault-hooks.ts), and no thread sees them.
 */
import {
  type MessagePort,
  parentPort,
  receiveMessageOnPort,
  workerData,
} from 'node:worker_threads';
import { assert } from '../lib/assert.ts';
import { nameThread } from '../lib/thread-name.ts';
import { faultHooksModule } from './fault-hooks-loader.ts';
import type { FromThread, ToThread } from './threads.ts';

interface Start {
  readonly thread: string;
  /** Of a thread that has others of its kind beside it. */
  readonly index?: number;
}

export class ThreadPort<S extends Start> {
  readonly start: S;
  /** As the main thread knows it. */
  readonly name: string;
  readonly #port: MessagePort;
  readonly #faults;

  constructor(kind: S['thread']) {
    assert(parentPort !== null, `the ${kind} is a worker thread`);
    this.#port = parentPort;
    this.start = workerData as S;
    const { thread, index } = this.start;
    assert(thread === kind, `the ${kind} gets a start of its own`);
    this.name = index === undefined ? thread : `${thread}-${index}`;
    nameThread(this.name);
    this.#faults =
      faultHooksModule && new faultHooksModule.FaultHooks(() => this.post({ kind: 'terminate' }));
  }

  readonly post = (message: FromThread): void => this.#port.postMessage(message);

  /** `take` hears of each message in a turn of the event loop. */
  listen(take: (message: ToThread) => void): void {
    this.#port.on('message', (message: ToThread) => {
      if (message.kind === 'fault') this.#faults?.apply(message.fault);
      else take(message);
    });
  }

  /** The next message, for a thread that has no event loop; undefined: there is none. */
  receive(): ToThread | undefined {
    const message = receiveMessageOnPort(this.#port)?.message as ToThread | undefined;
    if (message?.kind === 'fault') this.#faults?.apply(message.fault);
    return message;
  }

  /** The last it says: the thread ends with whatever else keeps it. */
  stopped(): void {
    this.post({ kind: 'stopped' });
    this.#port.close();
  }
}
