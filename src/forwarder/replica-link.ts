/**
 * What an exchange holds of its connection: how to cut it, whether it was used before, whether it has
 * sent everything, how much of an unwanted answer it still reads. Forwarder threads; one per exchange.
 */
import type { Dispatcher } from 'undici';
import { nowMs } from '../lib/clock.ts';
import type { ReplicaConnection } from './pools.ts';

/** A connection that was dead before the request shows it within a round trip; later, the replica died of it. */
const staleMsMax = 500;
/** What an answer nobody wants any more may still send before its connection is closed. */
const drainBytesMax = 64 * 1024;

/** What undici is told when the gateway ends an exchange. */
export const attemptOver = Object.assign(new Error('the attempt is over'), { name: 'AttemptOver' });

export class ReplicaLink {
  /** Set when undici gives the request to a connection; it may still have to connect. */
  connection: ReplicaConnection | undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #reused = false;
  #bytesReadBefore = 0;
  #retried = false;
  #startedMs = 0;
  #drainedBytes = 0;

  /** The request is about to be written. */
  started(controller: Dispatcher.DispatchController): void {
    const { connection } = this;
    this.#controller = controller;
    if (connection === undefined) return;
    this.#reused = connection.served > 0;
    this.#bytesReadBefore = connection.socket?.bytesRead ?? 0;
    connection.served++;
    this.#startedMs = nowMs();
  }

  resume(): void {
    this.#controller?.resume();
  }

  /** Bytes nobody wants any more came; too many of them cost the connection. */
  drain(bytes: number): void {
    this.#drainedBytes += bytes;
    if (this.#drainedBytes > drainBytesMax) this.#controller?.abort(attemptOver);
  }

  cut(): void {
    if (this.#controller !== undefined) this.#controller.abort(attemptOver);
    else this.connection?.socket?.destroy(attemptOver);
    // Without either it waits in undici, and Exchange.onRequestStart will take it back.
  }

  /** The socket still holds views of the request body. */
  get requestIsUnsent(): boolean {
    return (this.connection?.socket?.writableLength ?? 0) > 0;
  }

  /** The answer overtook the request: what is unsent must not leave once the body is freed. */
  dropUnsent(): void {
    if (this.requestIsUnsent) this.connection?.socket?.destroy();
  }

  /**
   * True, once, for a kept-alive connection that the replica had already given up: it had carried
   * requests, and was closed or reset without one byte since this one was handed to it. That says
   * nothing about the replica, so the same attempt goes on with a connection of its own.
   */
  takeStale(error: Error): boolean {
    if (!this.#reused || this.#retried) return false;
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'UND_ERR_SOCKET' && code !== 'ECONNRESET' && code !== 'EPIPE') return false;
    if (this.connection?.socket?.bytesRead !== this.#bytesReadBefore) return false;
    if (nowMs() - this.#startedMs > staleMsMax) return false;
    this.#retried = true;
    this.#controller = undefined;
    return true;
  }
}
