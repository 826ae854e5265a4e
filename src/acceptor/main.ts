/**
 * Entry of an acceptor thread: one listener, its requests, its doorbell. Event loop; never blocks.
 *
 * An acceptor must not die, because the process dies with it: handlers, timers and drains catch, count
 * and log what they throw, and the last net below does the same. If it dies nevertheless, the
 * supervisor starts the gateway again.
 */

import { nowUs } from '../lib/clock.ts';
import { faultPoint } from '../lib/fault-point.ts';
import { ThreadId } from '../shm/control.layout.ts';
import { EventLoopBell } from '../shm/doorbell.ts';
import { Heartbeat } from '../shm/heartbeat.ts';
import { ThreadPort } from '../shm/thread-port.ts';
import type { AcceptorStart, ToThread } from '../shm/threads.ts';
import { type AcceptorState, createAcceptorState } from './acceptor-state.ts';
import { Ending } from './ending.ts';
import { Ingest } from './ingest.ts';
import { KeepAlive } from './keep-alive.ts';
import { KeyRing } from './key-ring.ts';
import type { Listener } from './listener.ts';
import { ModelTable } from './model-table.ts';
import { OwnAnswers } from './own-answers.ts';
import type { Request, RequestOwner } from './request.ts';
import { Responder } from './responder.ts';
import { Settlement } from './settlement.ts';
import { SlowReaders } from './slow-readers.ts';
import { StoredResponseRequests } from './stored-responses.ts';
import { TokenCounts } from './token-counts.ts';

/** Together less than the main thread waits for an acceptor to stop. */
const usageCloseMs = 1000;
const logCloseMs = 500;

const port = new ThreadPort<AcceptorStart>('acceptor');
const { post } = port;

await run(port.start);

async function run(start: AcceptorStart): Promise<void> {
  const state = createAcceptorState(start);
  const stored = new StoredResponseRequests(state);
  const settlement = new Settlement(state, stored);
  const owner: RequestOwner = {
    body: (request: Request, bytes, isLast) => ingest.body(request, bytes, isLast),
    writable: (request: Request) => (request.isOwn ? ownAnswers : responder).writable(request),
    gone: (request: Request) => responder.gone(request),
  };
  const counts = start.tokenLimits && new TokenCounts(start.tokenLimits, state.metrics, post);
  const ownAnswers = new OwnAnswers(state, settlement);
  const ingest = new Ingest(state, settlement, owner, ownAnswers, stored, counts);
  const { failed } = state;
  const responder = new Responder(state, settlement, new Ending(state, settlement));
  const keepAlive = new KeepAlive(state);
  const slowReaders = new SlowReaders(state);

  const listener = await listen(start, ingest);
  process.on('uncaughtException', failed); // from here on; a failed start must end the thread
  const { control } = state;
  const bell = new EventLoopBell(control.words, control.ownBell, () => responder.drain());
  const gauges = {
    connections: () => listener.connections,
    arenaBytes: () => state.arena.used,
  };
  const heartbeat = new Heartbeat(start.memory, ThreadId.acceptor(start.index), gauges, () => {
    try {
      faultPoint('timer');
      keepAlive.sweep(nowUs());
      slowReaders.look();
    } catch (error) {
      failed(error);
    }
  });
  port.listen((message: ToThread) => {
    switch (message.kind) {
      case 'replica':
        state.replicaNames[message.replica.row] = message.replica.name;
        if (message.replica.takesBatches) state.batches = true;
        post({ kind: 'applied', row: message.replica.row, epoch: message.replica.epoch });
        return;
      case 'keys':
        state.keyRing = new KeyRing(message.keys);
        post({ kind: 'keysApplied' });
        return;
      case 'names':
        // In one turn: no request is looked up in the keys of the one and the names of the other.
        state.keyRing = new KeyRing(message.keys);
        state.models = new ModelTable(message.models, message.splits);
        post({ kind: 'modelsApplied' });
        return;
      case 'counted':
        counts?.answer(message.ticket, message.answer);
        return;
      case 'unlisten':
        void listener.stopListening().then(() => {
          heartbeat.beat(); // the last ones it took are in the gauge before anybody hears of it
          post({ kind: 'unlistened' });
        });
        return;
      case 'stop':
        void stop(state, listener, bell, heartbeat);
    }
  });
  bell.start();
  heartbeat.start();
  post({ kind: 'ready', port: listener.port });
}

async function listen(start: AcceptorStart, ingest: Ingest): Promise<Listener> {
  if (start.engine === 'uws') {
    const { listenUws } = await import('./listener-uws.ts');
    return listenUws(start, ingest);
  }
  const { listenNode } = await import('./listener-node.ts');
  return listenNode(start, ingest);
}

async function stop(
  state: AcceptorState,
  listener: Listener,
  bell: EventLoopBell,
  heartbeat: Heartbeat,
): Promise<void> {
  await listener.close();
  bell.stop();
  heartbeat.stop();
  await state.usage?.close(usageCloseMs);
  await state.log.close(logCloseMs);
  port.stopped();
}
