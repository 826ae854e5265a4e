/**
 * Heartbeats: a thread that starts, beats on its timer and stops, and a reader of its row.
 *
 * Promises: who sees a beat sees the connections of that beat or of a later one; a thread that reads
 * running has beaten; a stopped thread has no timer left. The floats of the row promise no order.
 */
import { ControlLayout, ThreadId, ThreadPhase } from '../../src/shm/control.layout.ts';
import { controlCounts, type MemorySize, type SharedMemory } from '../../src/shm/memory.ts';
import type { World } from './explorer.ts';
import type { Search, ShmModules } from './search.ts';
import { type Run, withGlobals } from './virtual-thread.ts';

const size: MemorySize = {
  acceptors: 1,
  forwarders: 1,
  slots: 2,
  arenaBytes: 0,
  responseRingBytes: 0,
};
const owner = ThreadId.acceptor(0);

function heartbeatWorld(m: ShmModules, timerBeats: number): World {
  const control = ControlLayout.create(controlCounts(size));
  const { thread } = ControlLayout.attach(control, controlCounts(size)).at;
  const row = thread.base + owner * thread.stride;
  const phase = row + thread.at.phase;
  const beats = row + thread.at.beats;
  const connections = row + thread.at.connections;
  const beating: Run = (t) => {
    let timer: (() => void) | undefined;
    const timers = {
      setInterval(callback: () => void): number {
        timer = callback;
        return 1;
      },
      clearInterval(id: unknown): void {
        if (id === 1) timer = undefined;
      },
    };
    withGlobals(timers, () => {
      let calls = 0;
      const gauges = { connections: () => ++calls, arenaBytes: () => 0 };
      const memory = { size, control } as SharedMemory;
      const heartbeat = new m.heartbeat.Heartbeat(memory, owner, gauges);
      heartbeat.start();
      const words = new Int32Array(control);
      t.check(Atomics.load(words, phase) === ThreadPhase.running, 'a started thread reads running');
      for (let beat = 0; beat < timerBeats; beat++) timer?.();
      heartbeat.stop();
      t.check(timer === undefined, 'a stopped thread has no timer');
    });
  };
  const reading: Run = (t) => {
    const words = new Int32Array(control);
    const isRunning = Atomics.load(words, phase) === ThreadPhase.running;
    const seen = Atomics.load(words, beats);
    t.check(!isRunning || seen > 0, 'a running thread has beaten');
    t.check(Atomics.load(words, connections) >= seen, 'a beat shows the gauges before it');
  };
  return {
    regions: [control],
    threads: [
      { name: 'beating thread', run: beating },
      { name: 'reader', run: reading },
    ],
    atEnd(view) {
      const made = timerBeats + 1;
      if (view.word(0, beats) !== made) throw new Error('each beat counts once');
      if (view.word(0, connections) !== made) throw new Error('the last gauges stay');
      if (view.word(0, phase) !== ThreadPhase.stopped) throw new Error('it reads stopped');
    },
  };
}

export function heartbeatSearches(m: ShmModules): Search[] {
  return [0, 1, 3].map((timerBeats) => ({
    name: `started, ${timerBeats} beats of the timer, stopped, under a reader`,
    world: () => heartbeatWorld(m, timerBeats),
  }));
}
